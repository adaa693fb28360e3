"""No value from spec or profile can add a line or a command to a job script: run by bash."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Spec, small_spec
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from hpc_sweep import placeholders
from hpc_sweep.clusters import JobQueue, make_cluster
from hpc_sweep.directives import PREFIX
from hpc_sweep.errors import SpecError
from hpc_sweep.jobscripts import driver_job, driver_script
from hpc_sweep.spec import load_spec
from hpc_sweep.store import run_folder

FRAGMENTS = (
    *("$(ran)", "`ran`", "; ran", "& ran", "| ran", "\nran\n", "\r\nran", "\u2028ran", "\x85ran"),
    *("'", '"', "\\", "\\\n", " ", "#", "\n#SBATCH --wrap=ran\n", "\n#PBS -l wd\n", "${IFS}ran"),
    *("<<E\n", "\0", "\x1b[2J", ">ran", "*", "~", "!", "(ran)", "{cores}", "{mounts}", "{{", "}"),
    *("-", "--", "=", ",", ":", "a", "1", "/", "é", "$HOME", "$PATH", "%j", "$((ran))"),
)
NASTY = st.lists(st.sampled_from(FRAGMENTS), min_size=1, max_size=4).map("".join)
PLACES = (
    *("queue", "account", "walltime", "time_min", "interface", "scheduler_interface"),
    *("account_option", "directives.0", "resources.0", "skip.0", "launcher.0", "launcher.1"),
    *("driver.queue", "driver.account", "driver.walltime", "driver.directives.0"),
    *("driver.resources.0", "scratch.folder", "mounts.join", "mounts.rules./", "machine"),
    *("options.queue", "options.job_name", "options.interface", "options.local_directory"),
    *("options.job_extra_directives.0", "options.resource_spec", "options.job_mem"),
    *("options.shebang", "options.walltime", "options.death_timeout"),
    *("output.store", "data.store"),
)
PREFIXES = ("", "-l ", "--qos=", "-W ", "run ")
"""What some values must begin with to get anywhere."""


HANDLER = """
command_not_found_handle() { echo "$1" >>"$OTHERS"; }
exec() { printf '%s\\0' "$@" >>"$WORDS"; exit; }
date() { echo 1000; }
"""
"""What bash reads first: no command exists but these functions, and it tells what is called."""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Pretend that the interpreter is at an awkward place."""
    place = "/opt/it's $(ran) `ran`/python"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hpc_sweep.clusters.workerjobs.sys.executable", place)
        patch.setattr("hpc_sweep.clusters.workerjobs.shutil.which", lambda name: f"/bin/{name}")
        yield place


def run(script: str, folder: Path) -> tuple[list[str], list[str]]:
    """Run a script in bash; return the words of its ``exec``, and all other commands."""
    folder.mkdir(exist_ok=True)
    texts = {"words": "", "others": "", "script": script, "handler": HANDLER}
    for name, text in texts.items():
        (folder / name).write_bytes(text.encode())
    before = set(folder.iterdir())
    done = subprocess.run(
        ["/bin/bash", str(folder / "script")],
        env={
            "PATH": str(folder / "no-commands"),
            "HOME": "/home",
            "TMPDIR": "/scratch/x y",
            "SLURM_JOB_END_TIME": "2000",
            "BASH_ENV": str(folder / "handler"),
            "WORDS": str(folder / "words"),
            "OTHERS": str(folder / "others"),
        },
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert set(folder.iterdir()) == before
    words = (folder / "words").read_bytes().decode().split("\0")[:-1]
    return words, (folder / "others").read_text().split()


def put(spec: Spec, place: str, text: str) -> None:
    """Put a text at a dotted place of a spec's cluster section, or at a path."""
    steps = place.split(".")
    if steps[0] in ("output", "data"):
        spec[steps[0]]["store"] += text
        return
    section = spec["cluster"]
    for step, following in zip(steps, [*steps[1:], ""], strict=True):
        if following == "":
            section[step] = text
        elif following.isdecimal():
            section.setdefault(step, [])
            while len(section[step]) < int(following):
                section[step].append("run")
            section[step].append(text)
            return
        else:
            section = section.setdefault(step, {})


def scripts(spec: Spec, python: str) -> tuple[str, str] | None:
    """Return the scripts of driver and worker, or None when the spec is refused."""
    try:
        loaded = load_spec(spec)
        folder = run_folder(loaded.output.store)
        cluster = make_cluster(loaded.cluster, folder.path, lambda event, **facts: None)
        assert isinstance(cluster, JobQueue)
        if cluster.faults():
            return None
        command = [python, "-m", "hpc_sweep", "run", str(folder.spec)]
        job = driver_job(loaded.cluster, command, str(folder.logs))
        return driver_script(loaded.cluster.kind, job), cluster.job_script()
    except SpecError:
        return None


def without_values(words: list[str]) -> list[str]:
    """Return words without the options that a spec may add, and their values."""
    added = ("--interface", "--local-directory")
    places = [index for index, word in enumerate(words) if word in added]
    return [word for index, word in enumerate(words) if {index, index - 1}.isdisjoint(places)]


def body(kind: str, script: str) -> list[str]:
    lines = script.split("\n")
    return [line for line in lines if not line.startswith(f"{PREFIX[kind]} ")]


@pytest.mark.parametrize("kind", PREFIX)
@settings(
    deadline=None,
    max_examples=60 if os.environ.get("CI") != "true" else 200,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    values=st.dictionaries(
        st.sampled_from(PLACES), st.tuples(st.sampled_from(PREFIXES), NASTY), max_size=3
    )
)
@example(values={"launcher.0": ("", "$(ran)'"), "directives.0": ("--qos=", "`ran`; ran #")})
@example(values={"scratch.folder": ("", "$HOME$PATH"), "resources.0": ("-l ", "a=$(ran)")})
@example(values={"options.job_name": ("", "\n#SBATCH --wrap=ran\n")})
@example(values={"options.local_directory": ("", "$(ran)")})
@example(values={"options.interface": ("", "; ran")})
@example(values={"options.resource_spec": ("", "a")})
@example(values={"options.shebang": ("", "\nran\n")})
@example(values={"output.store": ("", "; ran")})
@example(values={"data.store": ("", "; ran"), "launcher.0": ("", "{mounts}")})
@example(values={"mounts.rules./": ("", "$(ran)"), "directives.0": ("--qos=", "{mounts}")})
def test_no_value_becomes_shell(
    kind: str, values: dict[str, tuple[str, str]], python: str, tmp_path: Path, data: Path
) -> None:
    """A value is refused, or it stands in a comment, or python's launcher gets it as a word."""
    spec: Spec = small_spec(data, tmp_path / "out.zarr")
    spec["cluster"] = {"kind": kind, "workers": 2, "memory": "1GB", "walltime": "01:00:00"}
    plain = scripts(spec, python)
    assert plain is not None
    for place, (before, text) in sorted(values.items()):
        put(spec, place, before + text)
    made = scripts(spec, python)
    if made is None:
        return
    launcher = load_spec(spec).cluster.launcher
    for script, usual in zip(made, plain, strict=True):
        assert len(body(kind, script)) == len(body(kind, usual))
        words, others = run(script, tmp_path / "run")
        assert others == []
        first = [placeholders.expanded(word, {"cores": 1}) for word in launcher]
        assert words[: len(first) + 2] == [*first, python, "-m"]
        known, _ = run(usual, tmp_path / "run")
        assert len(without_values(words)) == len(first) + len(without_values(known))


@pytest.mark.parametrize("text", ["ran", "true $(ran)", "A=`ran`", ": ; ran", "true | ran"])
def test_the_check_can_fail(python: str, tmp_path: Path, text: str) -> None:
    """A command in a script is noticed, wherever it stands."""
    words, others = run(f"#!/bin/bash\n{text}\nexec x -m y\n", tmp_path / "run")
    assert others == ["ran"]
    assert words == ["x", "-m", "y"]
