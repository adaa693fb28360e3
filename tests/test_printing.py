"""Commands whose output nobody takes: a log on a full disk, a reader that went away."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Spec, hpc_sweep

from hpc_sweep.printing import lasting
from hpc_sweep.results import open_results

FULL = Path("/dev/full")


def with_output_to(out: Any, err: Any, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hpc_sweep", *map(str, arguments)]
    return subprocess.run(command, stdout=out, stderr=err, text=True, check=False)


@pytest.mark.parametrize("timeout", [None, 60])
@pytest.mark.usefixtures("faulty_on_workers")
def test_logs_on_a_full_disk(
    spec: Spec, write_spec: Callable[[Spec], Path], timeout: float | None
) -> None:
    """Neither the run ends, nor does a fit fail that prints, in a worker or under its guard."""
    spec["models"][1] = {"estimator": "faulty.Loud"}
    spec["search"]["timeout"] = timeout
    file, store = write_spec(spec), spec["output"]["store"]
    with FULL.open("w") as full:
        assert with_output_to(full, full, "run", file).returncode == 0
        again = with_output_to(full, subprocess.PIPE, "run", file)
        shown = with_output_to(full, subprocess.PIPE, "results", store)
    assert set(open_results(store)["status"].values.flat) == {1, 3}  # done, or empty
    assert again.returncode == 0
    assert again.stderr == "note: some of what was to be printed is lost: No space left on device\n"
    assert shown.returncode == 3  # here it is the answer
    assert shown.stderr.startswith("error: [Errno 28] No space left on device")


def test_a_reader_that_went_away(spec: Spec, write_spec: Callable[[Spec], Path]) -> None:
    file = write_spec(spec)
    command = [sys.executable, "-m", "hpc_sweep", "run", str(file)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("sweep:")
        process.stdout.close()
        assert process.wait(120) == 0
    assert hpc_sweep("run", file).stdout.startswith("complete already")


def test_an_error_that_cannot_be_printed_keeps_its_exit_code(tmp_path: Path) -> None:
    with FULL.open("w") as full:
        assert with_output_to(full, full, "run", tmp_path / "none.yaml").returncode == 2


def test_streams_in_memory_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    with lasting("stdout"):
        assert sys.stdout is stream
