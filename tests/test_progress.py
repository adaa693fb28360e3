"""What is shown of a run while it goes on: on a terminal, in a batch log, in the event log."""

from __future__ import annotations

import io
import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from hpc_sweep.choices import DONE, FAILED
from hpc_sweep.cli import facts
from hpc_sweep.cli.progress import Display, Lines, show_progress, steady_console
from hpc_sweep.drive import Progress, Roster, Speed
from hpc_sweep.drive.progress import MOST_REASONS, OTHER_REASONS
from hpc_sweep.store import Journal, Part, read_events
from hpc_sweep.work.tasks import REASON_LENGTH, reasons_of

REASON = "RuntimeError: the data is too wet " + "and wetter " * 20


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def progress(**known: Any) -> Progress:
    usual: dict[str, Any] = {"cells_done": 0, "name": "small", "phase": "fitting", "workers": 2}
    return Progress(1000, **{**usual, **known})


def test_there_is_no_time_left_before_units_have_shown_the_pace() -> None:
    speed, of = Speed(), progress(fits_per_cell=3)
    speed.begin(100.0)
    for second in range(1, 4):
        speed.add(100.0 + 2 * second, 10, of.workers)
        of.unit_done(10, 0, {})
        of.pace(speed, 100.0 + 2 * second)
        assert of.left_s is None, second
    speed.add(108.0, 10, of.workers)
    of.unit_done(10, 0, {})
    of.pace(speed, 108.0)
    assert of.fits_per_second == pytest.approx(3 * 40 / 8)
    assert of.left_s == pytest.approx(960 / (40 / 8))
    of.pace(speed, 208.0)  # nothing came: the pace is no longer what it was
    assert of.left_s == pytest.approx(960 / (40 / 108))
    of.workers = 0
    of.pace(speed, 208.0)
    assert of.left_s is None


def test_the_pace_is_that_of_late() -> None:
    speed = Speed()
    for second in range(1000):
        speed.add(float(second), 1, 2)
    for second in range(1000, 1200):
        speed.add(float(second), 5, 2)
    assert speed.per_second(1199.0, 2) == pytest.approx(5, rel=0.02)


def test_slow_units_make_a_pace_over_more_time() -> None:
    speed = Speed()
    for number in range(20):
        speed.add(600.0 * number, 60, 1)
    assert speed.per_second(600.0 * 19, 1) == pytest.approx(0.1)


def test_reasons_are_counted_and_bounded() -> None:
    of = progress()
    for number in range(3 * MOST_REASONS):
        of.unit_done(1, 1, {f"reason {number}": 1})
    of.unit_done(2, 2, {"reason 7": 2})
    assert of.reasons["reason 7"] == 3
    assert len(of.reasons) == MOST_REASONS + 1
    assert of.reasons[OTHER_REASONS] == 2 * MOST_REASONS
    assert "reason 7" not in facts.failures_text(of)
    assert f"{3 * MOST_REASONS + 2} candidates failed" in facts.failures_text(of)


def test_what_a_receipt_tells_of_failures_is_short() -> None:
    status = np.full((2, 3), FAILED, dtype=np.int8)
    status[0, 0] = status[1, 2] = DONE
    nothing: Any = None
    texts = {(0, 0): "a warning", (0, 1): "rare", (0, 2): REASON, (1, 0): REASON}
    texts |= {(1, 1): "x\ny", (1, 2): "a warning"}
    part = Part({}, nothing, nothing, status, nothing, nothing, texts)
    told = reasons_of(part)
    assert list(told.values()) == [2, 1]
    first, _ = told
    assert first == REASON[: REASON_LENGTH - 1] + "…"


def log_of(shown: Lines, updates: list[tuple[float, Progress]], clock: Clock, capsys: Any) -> str:
    for now, each in updates:
        clock.now = now
        shown.update(each)
    shown.end()
    return str(capsys.readouterr().err)


def test_a_batch_log_has_a_line_every_half_minute(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    updates = [(0.0, progress(phase="starting")), (1.0, progress(workers=0))]
    updates += [(2.0 + n / 2, progress(cells_done=n)) for n in range(200)]
    log = log_of(Lines(clock), updates, clock, capsys).splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \w", line) for line in log)
    said = [line[20:] for line in log]
    assert said[:2] == ["starting the cluster", "waiting for workers: " + said[1][21:]]
    shares = ["0.0%", "6.0%", "12.0%", "18.0%", "19.9%"]
    assert [line.split()[1] for line in said[2:]] == shares, said


def test_a_batch_log_does_not_repeat_what_is_waited_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    clock = Clock()
    waits = progress(workers=0, workers_asked=4, note="workers: 1 job(s) PENDING (Resources)")
    updates = [(float(now), waits) for now in range(0, 1000, 1)]
    log = log_of(Lines(clock), updates, clock, capsys).splitlines()
    assert len(log) == 3
    assert "waiting for workers: 1 job(s) PENDING (Resources): 0.0% done" in log[0]
    assert "0 workers (4 pending)" in log[0]


@pytest.mark.parametrize("phase", ["copying", "fitting"])
def test_a_batch_log_has_no_line_for_each_step(
    phase: str, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock()
    updates = [(0.0, progress(phase="starting")), (1.0, progress(phase=phase))]
    steps = [f"{n} of 180 blocks are there" for n in range(180)]
    updates += [(1 + n / 2, progress(phase=phase, step=step)) for n, step in enumerate(steps)]
    updates += [(100.0, progress(phase="closing", step=steps[-1]))]
    said = log_of(Lines(clock), updates, clock, capsys).splitlines()
    assert [line[20:].split()[0] for line in said[2:]] == ["60", "120", "179"]


def test_where_there_is_no_terminal_nothing_is_drawn(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with show_progress() as shown:
        shown.update(progress())
    assert "\x1b" not in capsys.readouterr().err
    with show_progress(quiet=True) as shown:
        shown.update(progress())
        shown.say("take care")
    assert capsys.readouterr().err[20:] == "take care\n"


FULL = {
    "cells_done": 430,
    "fits_per_cell": 30_000,
    "workers_asked": 128,
    "workers_lost": 3,
    "units": 12_345,
    "in_flight": 384,
    "failed": 12,
    "fits_per_second": 12_345.6,
    "left_s": 5000.0,
    "name": "a very long name of a sweep that somebody gave it",
}


@pytest.mark.parametrize("width", [24, 80, 120])
def test_a_terminal_is_left_as_it_was_and_no_line_is_too_long(width: int) -> None:
    file = io.StringIO()
    console = steady_console(file=file, force_terminal=True, width=width, height=40, _environ={})
    shown = Display(console)
    of = progress(**FULL)
    of.reasons[REASON] = 11
    shown.update(of)
    shown._live.refresh()
    shown.say("x" * 200)
    with shown.aside():
        file.write("the plan\n")
    shown.update(progress(phase="closing", cells_done=1000))
    shown.end()
    out = file.getvalue()
    assert not re.search(r"\x1b\[\?", out)  # no mode is set: no hidden cursor, no other screen
    for row in re.sub(r"\x1b\[[\d;]*[A-Za-z]", "", out).split("\n"):
        drawn = row.rpartition("\r")[2]
        assert len(drawn) < width or drawn == "x" * 200, drawn
    if width >= 80:
        assert "about 83 min left" in out
        assert "12,900,000 of 30,000,000 fits, 12,346 fits/s" in out
        assert "2 workers (126 pending, 3 lost); 12,345 units done, 384 in hand" in out
        assert "12 candidates failed, 11 of them: RuntimeError: the data" in out
        assert "so far" not in out
    after = out[out.rindex("the plan\n") :]
    assert after.count("\n") - 1 <= after.count("\x1b[1A")  # whatever was drawn is taken back


def test_of_a_run_that_is_stopped_one_line_stays() -> None:
    file = io.StringIO()
    shown = Display(Console(file=file, force_terminal=True, width=80, _environ={}))
    shown.update(progress(cells_done=430))
    shown.end()
    assert file.getvalue().endswith("so far: 43.0% done, 430 of 1,000 fits, 0 units in this run\n")


def test_a_run_that_drains_says_so_and_tells_no_time() -> None:
    text = facts.line(progress(draining=True, left_s=50.0, in_flight=2, fits_per_second=20.0))
    assert text.startswith("ending when the units in hand are done: 0.0% done")
    assert "left" not in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (1, "5 s"),
        (47, "45 s"),
        (89, "90 s"),
        (100, "2 min"),
        (6100, "1 h 40 min"),
        (1e6, "12 days"),
    ],
)
def test_a_guessed_time_has_few_figures(seconds: float, text: str) -> None:
    assert facts.rounded(seconds) == text


def test_a_copy_is_told_in_bytes() -> None:
    text = facts.line(progress(phase="copying", cells_done=250, size_bytes=8_000_000_000))
    assert "copying data into another layout: 25.0% done, 2.0 GB of 8.0 GB" in text
    assert "250 of 1,000 slabs" in text


def test_workers_that_come_and_go_are_written_down_with_host_and_job(tmp_path: Any) -> None:
    named = {"tls://10.0.0.1:1": {"name": "C-0-1"}, "tls://10.0.0.2:1": {"name": "C-1-0"}}
    client: Any = SimpleNamespace(scheduler_info=lambda n_workers: {"workers": named})
    cluster: Any = SimpleNamespace(job_of=lambda name: {"C-0-1": "17", "C-1-0": "18"}[name])
    journal = Journal(tmp_path / "events.jsonl")
    roster = Roster(client, cluster, journal)
    for here in (list(named), list(named), ["tls://10.0.0.1:1"], ["tls://10.0.0.1:1"]):
        roster.look(here)
    told = [(e["event"], e["host"], e["job"]) for e in read_events(journal.path)]
    assert told == [
        ("worker_joined", "10.0.0.1", "17"),
        ("worker_joined", "10.0.0.2", "18"),
        ("worker_lost", "10.0.0.2", "18"),
    ]
    assert roster.lost == 1
