"""Scripts of driver jobs: golden texts, and that no value can add a line or a command."""

from __future__ import annotations

import shlex
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from conftest import Spec
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc_sweep.cli import main
from hpc_sweep.directives import Changes, Size
from hpc_sweep.errors import ClusterError, SpecError
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
        "check": ["/opt/env/bin/python", "-c", "import hpc_sweep.cli"],
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
    text = driver_script(kind, job(command=words, prologue=(), check=()))
    assert shlex.split(text.split("\nexec ", 1)[1]) == words


@pytest.mark.parametrize("path", ["/data/a b", "/data/$(touch x)", "/data/a'b", "/data/a\nb"])
def test_the_shell_runs_nothing_else(tmp_path: Path, path: str) -> None:
    command = ["printf", "%s", path]
    script = tmp_path / "driver.sh"
    check = ["printf", path]
    script.write_text(driver_script("slurm", job(command=command, prologue=(), check=check)))
    shown = subprocess.run(["bash", str(script)], capture_output=True, text=True, cwd=tmp_path)
    assert shown.stdout == path
    assert [file.name for file in tmp_path.iterdir()] == ["driver.sh"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("python", "words"),
    [
        ("/no/such env/bin/python", "/no/such env/bin/python: No such file or directory"),
        ("/bin/false", ""),
        (sys.executable, "ModuleNotFoundError: No module named 'hpc_sweep.nonesuch'"),
    ],
)
def test_a_node_where_the_driver_cannot_begin(
    kind: str, python: str, words: str, tmp_path: Path
) -> None:
    """Python's or the shell's words, then one message; nothing of the command is run."""
    check = [python, "-c", "import hpc_sweep.nonesuch"]
    text = driver_script(kind, job(command=["touch", "ran"], prologue=(), check=check))
    script = tmp_path / "driver.sh"
    script.write_text(text)
    ended = subprocess.run(["bash", str(script)], capture_output=True, text=True, cwd=tmp_path)
    assert ended.returncode == 3
    *said, message = ended.stderr.splitlines()
    assert words in "\n".join(said)
    assert message.startswith(f"error: the driver cannot begin on {socket.gethostname()}: ")
    assert shlex.quote(python) in message
    for remedy in ("cluster.prologue", "cluster.launcher", "hpc-sweep doctor"):
        assert remedy in message
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
    monkeypatch.setattr("hpc_sweep.clusters.workerjobs.shutil.which", lambda name: f"/bin/{name}")
    before = set(tmp_path.rglob("*"))
    shown = CliRunner().invoke(main, ["submit", str(file), "--dry-run"])
    assert shown.exit_code == 0, shown.output
    assert "# --- the driver's job ---" in shown.output
    assert "hpc-sweep-driver" in shown.output
    assert "-m hpc_sweep.worker tls://" in shown.output
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("text", ["#!/bin/bash\nexec {{ comand }}\n", "{% if %}", None])
def test_a_wrong_template(tmp_path: Path, text: str | None) -> None:
    """One message with the file and the fields that there are."""
    if text is not None:
        (tmp_path / "driver-slurm.sh.j2").write_text(text)
    with pytest.raises(SpecError) as caught:
        driver_script("slurm", job(), tmp_path)
    assert f"the template {tmp_path}/driver-slurm.sh.j2 has 1 fault" in str(caught.value)
    assert "fields are command, log_folder" in str(caught.value)


REJECTIONS = [
    (
        "slurm",
        1,
        "sbatch: error: Batch job submission failed: Invalid account or account/partition",
    ),
    ("slurm", 1, "sbatch: error: Access/permission denied"),
    ("pbs", 170, "qsub: Unknown queue"),
    ("pbs", 166, "qsub: Illegal attribute or resource value Resource_List.walltime"),
    ("pbs", 188, "qsub: Job violates queue and/or server resource limits"),
    ("pbs", 187, "qsub: Unknown resource Resource_List.storage"),
]
"""Words of Slurm with accounting and of OpenPBS, as recorded on them."""


@pytest.mark.parametrize(("kind", "code", "words"), REJECTIONS)
def test_what_a_queue_refuses(
    spec: Spec,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    code: int,
    words: str,
) -> None:
    """One message with the queue's own words, and exit code 3."""
    from ruamel.yaml import YAML

    command = tmp_path / "bin" / {"slurm": "sbatch", "pbs": "qsub"}[kind]
    command.parent.mkdir()
    command.write_text(f"#!/bin/sh\necho '{words}' >&2\nexit {code}\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(command.parent))
    spec["cluster"] = {"kind": kind, "workers": 2, "memory": "1GB", "account": "nobodys"}
    file = tmp_path / "sweep.yaml"
    YAML(typ="safe", pure=True).dump(spec, file)
    shown = CliRunner().invoke(main, ["submit", str(file)])
    assert shown.exit_code == 3
    assert shown.stderr == f"error: the queue refused the driver's job: {words}\n"


def test_submit_without_a_scheduler(
    spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ruamel.yaml import YAML

    monkeypatch.setenv("PATH", str(tmp_path))
    spec["cluster"] = {"kind": "pbs", "workers": 2, "memory": "1GB"}
    file = tmp_path / "sweep.yaml"
    YAML(typ="safe", pure=True).dump(spec, file)
    before = set(tmp_path.rglob("*"))
    shown = CliRunner().invoke(main, ["submit", str(file)])
    assert shown.exit_code == 2
    assert "cluster.kind: pbs needs qsub, which is not on PATH here" in shown.stderr
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


# --- several drivers -------------------------------------------------------------------------


def submit_drivers(spec: Spec, folder: Path, *options: str) -> Any:
    from ruamel.yaml import YAML

    spec["cluster"] = {"kind": "slurm", "workers_per_node": 2, "memory": "1GB"}
    file = folder / "sweep.yaml"
    YAML(typ="safe", pure=True).dump(spec, file)
    return CliRunner().invoke(main, ["submit", str(file), *options])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("Dependency not allowed", "the queue refused the driver's job: sbatch: error: Depend"),
        ("Unable to contact slurm controller", None),
    ],
)
def test_a_chain_whose_second_job_is_not_taken(
    spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, message: str | None
) -> None:
    """A refusal leaves nothing behind; where the queue only asks to wait the first link goes on."""
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    (bin_ / "sbatch").write_text(
        "#!/bin/bash\n"
        f'[[ $* == *--dependency* ]] && echo "sbatch: error: {words}" >&2 && exit 1\necho 7\n'
    )
    (bin_ / "scancel").write_text(f"#!/bin/bash\necho $* > {tmp_path}/cancelled\n")
    for command in bin_.iterdir():
        command.chmod(0o755)
    monkeypatch.setenv("PATH", str(bin_), prepend=":")
    shown = submit_drivers(spec, tmp_path, "--chain")
    if message is None:
        assert shown.exit_code == 0, shown.output
        assert "submitted the driver as job 7" in shown.output
        assert "the first one queues its successors" in shown.output
        assert not (tmp_path / "cancelled").exists()
    else:
        assert shown.exit_code == 3
        assert shown.stderr.startswith(f"error: {message}")
        assert "nothing was submitted" in shown.stderr
        assert (tmp_path / "cancelled").read_text() == "7\n"


def test_where_arrays_are_refused_drivers_are_submitted_one_by_one(
    spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for sbatch: Slurm refuses arrays only where its administrator said so."""
    stub = tmp_path / "bin" / "sbatch"
    stub.parent.mkdir()
    stub.write_text(
        "#!/bin/bash\nscript=${!#}\n"
        'if grep -q -e --array "$script"; then\n'
        '  echo "sbatch: error: Batch job submission failed: Invalid job array specification" >&2\n'
        "  exit 1\nfi\n"
        f'cat "$script" >> {tmp_path}/submitted; grep -c "^exec" {tmp_path}/submitted\n'
    )
    stub.chmod(0o755)
    monkeypatch.setenv("PATH", str(stub.parent), prepend=":")
    shown = submit_drivers(spec, tmp_path, "--drivers", "3")
    assert shown.exit_code == 0, shown.output
    assert "submitted 3 drivers as job 1, 2, 3" in shown.output
    commands = [
        line for line in (tmp_path / "submitted").read_text().splitlines() if line[:4] == "exec"
    ]
    assert [command.split()[-2:] for command in commands] == [
        ["--share", f"{index}/3"] for index in (1, 2, 3)
    ]
    assert (tmp_path / "results.zarr" / "zarr.json").exists()  # none of them has to make it


@pytest.mark.usefixtures("any_command")
def test_drivers_need_no_workers_elsewhere(spec: Spec, tmp_path: Path) -> None:
    shown = submit_drivers(spec, tmp_path, "--drivers", "3", "--dry-run")
    assert shown.exit_code == 0, shown.output
    assert "#SBATCH --array=1-3\n" in shown.output
    assert "#SBATCH --cpus-per-task=2\n" in shown.output
    assert "--share array/3" in shown.output
    assert "dask_worker" not in shown.output
    assert not (tmp_path / "results.zarr").exists()


@pytest.mark.usefixtures("any_command")
def test_drivers_have_no_chain(spec: Spec, tmp_path: Path) -> None:
    shown = submit_drivers(spec, tmp_path, "--drivers", "3", "--chain")
    assert shown.exit_code == 2
    assert "--drivers: has no --chain; submit again to go on" in shown.output


@pytest.fixture
def any_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every command seem to be there."""
    monkeypatch.setattr("hpc_sweep.clusters.workerjobs.shutil.which", lambda name: f"/bin/{name}")


def test_a_share_outside_an_array(monkeypatch: pytest.MonkeyPatch) -> None:
    from hpc_sweep.plan import WHOLE, Share
    from hpc_sweep.submission import parse_share

    for name in ("SLURM_JOB_ID", "PBS_JOBID", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ClusterError, match="needs a job array"):
        parse_share("array/4")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    assert parse_share("array/4") == Share(3, 4)
    assert parse_share("array/1") == WHOLE
    assert parse_share("2/4") == Share(2, 4)


@pytest.mark.usefixtures("any_command")
def test_one_job_is_not_run_outside_a_job(
    spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ruamel.yaml import YAML

    for name in ("SLURM_JOB_ID", "PBS_JOBID"):
        monkeypatch.delenv(name, raising=False)
    spec["cluster"] = {"kind": "slurm", "place": "one_job", "workers": 2, "memory": "1GB"}
    file = tmp_path / "sweep.yaml"
    YAML(typ="safe", pure=True).dump(spec, file)
    shown = CliRunner().invoke(main, ["run", str(file)])
    assert shown.exit_code == 2
    assert "cluster.place: one_job runs inside a job, and this is none" in shown.output
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.yaml"]
