"""Scripts of driver jobs: golden texts, and that no value can add a line or a command."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from conftest import Spec
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc_sweep.cli import main
from hpc_sweep.directives import Changes, Size
from hpc_sweep.errors import SpecError
from hpc_sweep.jobscripts import DriverJob, driver_script

KINDS = ["slurm", "pbs"]


def job(**changes: Any) -> DriverJob:
    given = {
        "command": ["/opt/env/bin/python", "-m", "hpc_sweep", "run", "/data/x.zarr.run/spec.json"],
        "log_folder": "/data/x.zarr.run/logs",
        "size": Size(cores=1, memory_bytes=4_000_000_000),
        "changes": Changes(directives=["--qos=long"]),
        "queue": "compute",
        "account": "p42",
        "walltime": "24:00:00",
        "prologue": ["module load python"],
    }
    return DriverJob(**{**given, **changes})


@pytest.mark.parametrize("kind", KINDS)
def test_golden(kind: str) -> None:
    golden = Path(__file__).parent / "golden" / f"{kind}-driver.sh"
    assert driver_script(kind, job()) == golden.read_text()


@pytest.mark.parametrize("kind", KINDS)
def test_open_values_leave_their_lines_out(kind: str) -> None:
    bare = job(queue=None, account=None, walltime=None, changes=Changes(), prologue=())
    lines = driver_script(kind, bare).splitlines()
    assert not [line for line in lines if "None" in line or not line.strip()]
    assert lines[-1].startswith("exec /opt/env/bin/python")


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None)
@given(
    text=st.text(min_size=1, max_size=20), name=st.sampled_from(["queue", "account", "walltime"])
)
def test_no_value_adds_a_line(kind: str, text: str, name: str) -> None:
    """A value is refused, or it stands whole on the one line that it had before."""
    plain = driver_script(kind, job(**{name: "99:59:59"})).splitlines()
    try:
        made = driver_script(kind, job(**{name: text})).split("\n")[:-1]
    except SpecError as error:
        assert [fault.path for fault in error.faults] == [f"cluster.driver.{name}"]  # noqa: PT017
        return
    assert made == [line.replace("99:59:59", text) for line in plain]
    assert not set(text) & set("\n\r\t '\"$`;&|<>(){}\\*?!#~")


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None)
@given(words=st.lists(st.text(st.characters(exclude_characters="\0"), min_size=1), min_size=1))
def test_the_command_is_what_it_was(kind: str, words: list[str]) -> None:
    """The shell gets the words as they are, whatever is in them."""
    text = driver_script(kind, job(command=words, prologue=()))
    assert shlex.split(text.split("\nexec ", 1)[1]) == words


@pytest.mark.parametrize("path", ["/data/a b", "/data/$(touch x)", "/data/a'b", "/data/a\nb"])
def test_the_shell_runs_nothing_else(tmp_path: Path, path: str) -> None:
    command = ["printf", "%s", path]
    script = tmp_path / "driver.sh"
    script.write_text(driver_script("slurm", job(command=command, prologue=())))
    shown = subprocess.run(["bash", str(script)], capture_output=True, text=True, cwd=tmp_path)
    assert shown.stdout == path
    assert [file.name for file in tmp_path.iterdir()] == ["driver.sh"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", ["a\nb", "a\rb", "a\u2028b", ""])
def test_directives_and_prologue_stay_on_their_lines(kind: str, text: str) -> None:
    for change in ({"prologue": [text]}, {"changes": Changes(directives=[text])}):
        with pytest.raises(SpecError, match="is not one line"):
            driver_script(kind, job(**change))


@pytest.mark.parametrize("kind", KINDS)
def test_dry_run_prints_both_and_writes_nothing(
    kind: str, spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ruamel.yaml import YAML

    spec["cluster"] = {"kind": kind, "workers": 2, "memory": "1GB", "queue": "compute"}
    file = tmp_path / "sweep.yaml"
    YAML(typ="safe", pure=True).dump(spec, file)
    monkeypatch.setattr("hpc_sweep.clusters.jobqueue.shutil.which", lambda name: f"/bin/{name}")
    before = set(tmp_path.rglob("*"))
    shown = CliRunner().invoke(main, ["submit", str(file), "--dry-run"])
    assert shown.exit_code == 0, shown.output
    assert "# --- the driver's job ---" in shown.output
    assert "hpc-sweep-driver" in shown.output
    assert "-m hpc_sweep.worker tls://" in shown.output
    assert set(tmp_path.rglob("*")) == before


def test_submit_needs_a_queue(spec: Spec, tmp_path: Path) -> None:
    from ruamel.yaml import YAML

    file = tmp_path / "sweep.yaml"
    YAML(typ="safe", pure=True).dump(spec, file)
    shown = CliRunner().invoke(main, ["submit", str(file)])
    assert shown.exit_code == 2
    assert "'local' has no queue to submit to; use --cluster slurm or pbs" in shown.output


def test_cancel_of_nothing(tmp_path: Path) -> None:
    shown = CliRunner().invoke(main, ["cancel", str(tmp_path / "absent.zarr")])
    assert shown.exit_code == 2
    assert "no job is known" in shown.output
