"""Dask's own report of a run: when there is one, and that nothing is held up by it."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from hpc_sweep.choices import AUTO
from hpc_sweep.cli import main
from hpc_sweep.errors import ClusterError, Interrupted
from hpc_sweep.spec import load_spec
from hpc_sweep.stops import CLOSE_S, Stops
from hpc_sweep.store import run_folder
from hpc_sweep.sweep import DaskReport, execute, performance
from hpc_sweep.sweep.performance import LEAST_S, MOST_KEPT, MOST_S

Spec = dict[str, Any]


class Made:
    """A report of a scheduler that is not there, and what was said of it."""

    def __init__(self, folder: Path, wanted: bool | str, left_s: float = 1000.0) -> None:
        self.run = run_folder(folder / "results.zarr").make()
        self.texts: list[str] = []
        self.ending: Any = SimpleNamespace(left_s=lambda: left_s)
        self.client: Any = SimpleNamespace(status="running")
        stops = Stops(self.ending)
        self.report = DaskReport(wanted, self.run, stops, self.texts.append)  # type: ignore[arg-type]

    def kept(self, seconds: float = 0.0) -> int:
        """Return how many pages there are after a run of so long."""
        self.report.begin(self.client)
        if self.report._began is not None:
            self.report._began -= seconds
        self.report.record(self.client)
        self.report.keep()
        return len(self.run.performance_reports())


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Made]:
    """Return a function that makes one, whose scheduler and page are others'."""
    monkeypatch.setattr(performance, "begin_recording", lambda client: None)
    monkeypatch.setattr(performance, "recorded", lambda client, began, timeout_s: {"known": 1})
    monkeypatch.setattr(performance, "rendered", lambda record: b"page")
    return lambda *known: Made(tmp_path, *known)


@pytest.mark.parametrize(
    ("wanted", "seconds", "pages"),
    [(AUTO, 0.0, 0), (AUTO, LEAST_S, 1), (True, 0.0, 1), (False, 1000.0, 0)],
)
def test_of_which_runs_there_is_one(
    made: Callable[..., Made], wanted: bool | str, seconds: float, pages: int
) -> None:
    each = made(wanted)
    assert (each.kept(seconds), each.texts) == (pages, [])


def test_what_goes_wrong_is_one_line(
    made: Callable[..., Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    def raises(*arguments: Any) -> Any:
        raise ValueError("no plot")

    assert made(True, 5.0).kept() == 0
    for name in ("begin_recording", "recorded", "rendered"):
        with monkeypatch.context() as patch:
            patch.setattr(performance, name, raises)
            each = made(True)
            assert each.kept() == 0
            assert each.texts == ["no performance report: ValueError: no plot"]
    lost = made(True)
    lost.client.status = "closed"
    assert lost.kept() == 0
    assert lost.texts == ["no performance report: the Dask scheduler went away"]


def test_a_page_that_takes_too_long_is_given_up(
    made: Callable[..., Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Because there is no time left, or too little; what it is then, is written by nobody."""
    goes_on = threading.Event()

    def page(record: Any) -> bytes:
        each.ending.left_s = lambda: CLOSE_S / 2  # as after a SIGTERM
        goes_on.wait(60)
        raise ValueError("too late")

    monkeypatch.setattr(performance, "rendered", page)
    each = made(True)
    begin = time.monotonic()
    try:
        assert each.kept() == 0
        assert each.texts == ["no performance report: there is no time for it"]
        assert time.monotonic() - begin < MOST_S
    finally:
        goes_on.set()


def test_the_last_ones_of_a_store_are_kept(made: Callable[..., Made]) -> None:
    each = made(True)
    for day in range(1, 8):
        (each.run.path / f"performance-{day % 3}-of-3-2026010{day}T000000.html").touch()
    assert each.kept() == MOST_KEPT
    days = [int(page.stem[-8]) for page in each.run.performance_reports()[:-1]]
    assert days == [4, 5, 6, 7]


def test_by_default_of_a_real_run(spec: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the store is free again; that it ends by an error makes no difference."""
    monkeypatch.setattr(performance, "LEAST_S", 0.0)
    del spec["cluster"]["performance_report"]
    spec["models"] = spec["models"][:1]
    run = run_folder(spec["output"]["store"])
    acts: list[Callable[[], None]] = []
    errors: list[str] = []

    def fails(progress: Any) -> None:
        if progress.units and progress.phase == "fitting":
            raise ClusterError("on purpose")

    with pytest.raises(ClusterError):
        execute(load_spec(spec), on_progress=fails, later=acts.append, say=errors.append)
    assert not run.lease.exists()
    (act,) = acts
    act()
    assert errors == []
    (file,) = run.performance_reports()
    page = file.read_text()
    assert "Task Stream" in page
    assert re.search(r"number of tasks: [1-9]", page)
    assert not re.search(r'<(script|link)[^>]*(src|href)="(?!data:)', page)
    assert str(run.keys) not in page


@pytest.mark.parametrize(
    ("words", "value"),
    [([], AUTO), (["--performance-report"], True), (["--no-performance-report"], False)],
)
def test_options(
    spec: Spec,
    write_spec: Callable[[Spec], Path],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    value: bool | str,
) -> None:
    del spec["cluster"]["performance_report"]
    values: list[bool | str] = []

    def execute(loaded: Any, **options: Any) -> Any:
        values.append(loaded.cluster.performance_report)
        raise Interrupted("enough")

    monkeypatch.setattr("hpc_sweep.sweep.execute", execute)
    CliRunner().invoke(main, ["run", str(write_spec(spec)), *words])
    assert values == [value]
