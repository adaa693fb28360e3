"""Following a sweep from outside: by new lines of its event logs, whatever happens meanwhile."""

from __future__ import annotations

import datetime
import json
import shutil
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from click.testing import CliRunner

from hpc_sweep.cli import facts, main
from hpc_sweep.driverjobs import NotBegun
from hpc_sweep.errors import EXIT_INTERRUPTED, ClusterError, StoreError
from hpc_sweep.prepare import create, prepare
from hpc_sweep.spec import load_spec
from hpc_sweep.store import Journal, Ledger, run_folder
from hpc_sweep.store.lease import HEARTBEAT_S, hold
from hpc_sweep.sweep import execute, told_of_its_end
from hpc_sweep.tally import GrowingLog, Tally, together
from hpc_sweep.watching import ASK_EVERY_S, SILENT_S, Standing, Watching, Work

Spec = dict[str, Any]


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Log:
    """Writes events at times of its own."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(exist_ok=True)
        self.path = path

    def write(self, second: float, event: str, **facts: Any) -> None:
        moment = datetime.datetime(2026, 11, 22, tzinfo=datetime.UTC)
        moment += datetime.timedelta(seconds=second)
        line = {"time": moment.isoformat().replace("+00:00", "Z"), "event": event, **facts}
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def begin(self, share: str = "1/1", cells: int = 1000, **facts: Any) -> None:
        known = {"share": share, "cells": cells, "cells_done": 100, "fits_per_cell": 3}
        self.write(0, "run_started", name="small", workers=4, chunks=9, **{**known, **facts})
        self.write(1, "phase", phase="fitting")
        self.write(2, "workers", workers=2)


def test_a_tally_says_what_the_run_itself_shows(spec: Spec) -> None:
    """A real run, whose last progress is compared with that of its log."""
    spec["models"] = spec["models"][:1]
    shown: list[Any] = []
    outcome = execute(load_spec(spec), on_progress=shown.append)
    tally = Tally(outcome.store.run.events)
    tally.look()
    mine, theirs = tally.progress(), shown[-1]
    assert tally.result == "complete"
    names = ("cells", "cells_done", "fits", "failed", "units", "chunks", "chunks_folded", "name")
    for name in (*names, "workers", "workers_asked", "workers_lost", "fits_per_cell"):
        assert getattr(mine, name) == getattr(theirs, name), name
    assert mine.cells_done == mine.cells == 48 * 3
    phases = [event["phase"] for event in GrowingLog(tally.log.path).look() if "phase" in event]
    assert phases == ["starting", "fitting", "closing"]
    kinds = [event["event"] for event in GrowingLog(tally.log.path).look()]
    assert kinds.count("worker_joined") == 2

    result = CliRunner().invoke(main, ["status", str(outcome.store.path), "--watch"])
    assert result.exit_code == 0, result.output
    assert "small: complete" in result.output


def test_pace_reasons_and_workers_of_a_log(tmp_path: Path) -> None:
    log, clock = Log(tmp_path / "events.jsonl"), Clock()
    log.begin()
    tally = Tally(log.path, clock)
    for number in range(40):
        log.write(10 + number, "unit_started", unit=f"{number}")
        failing = {"failed": 2, "reasons": {"too wet": 2}} if number % 2 else {"failed": 0}
        log.write(12 + number, "unit_done", unit=f"{number}", seconds=2, fits=30, **failing)
    log.write(60, "worker_lost", worker="a", host="a", job="7")
    log.write(60, "workers", workers=1)
    tally.look()
    clock.now += 10
    seen = tally.progress()
    assert seen.fits_per_second == pytest.approx(1200 / 60)  # from 10 to 60, and 10 s since
    assert seen.left_s == pytest.approx((900 - 400) * 3 / 20)
    assert (seen.workers, seen.workers_pending, seen.workers_lost) == (1, 3, 1)
    assert seen.failed == seen.reasons["too wet"] == 40
    assert seen.seconds == pytest.approx(70)
    log.write(80, "workers", workers=0)
    log.write(90, "topped_up", workers=0, reason="2 job(s) PENDING (Resources)")
    tally.look()
    seen = tally.progress()
    assert seen.note == "workers: 2 job(s) PENDING (Resources)"
    assert seen.left_s is None


def test_a_copy_in_the_middle_of_a_log_is_told_apart(tmp_path: Path) -> None:
    """Where workers lost what they kept: nothing of the fits before is told as of slabs."""
    log, clock = Log(tmp_path / "events.jsonl"), Clock()
    log.begin()
    tally = Tally(log.path, clock)
    for number in range(40):
        log.write(10 + number, "unit_started", unit=f"{number}")
        log.write(12 + number, "unit_done", unit=f"{number}", fits=30, failed=0)
    log.write(60, "unit_started", unit="lost")
    log.write(61, "peers_lost", reason="blocks are lost")
    tally.look()
    assert facts.line(tally.progress()).endswith("40 units done, 2 workers (2 pending)")
    log.write(62, "rechunking", slabs=24, of=27, bytes=8000)
    log.write(62, "phase", phase="copying")
    tally.look()
    assert facts.line(tally.progress()).endswith(
        "3 of 27 slabs, 0 units done, 2 workers (2 pending)"
    )
    log.write(63, "workers", workers=1)
    log.write(64, "slab_started", unit="1")
    log.write(66, "slab_done", unit="1", fits=1, failed=0)
    log.write(67, "phase", phase="fitting")
    tally.look()
    assert facts.line(tally.progress()).endswith(
        "1,500 of 3,000 fits, 40 units done, 1 worker (3 pending)"
    )


def test_a_log_is_read_from_where_it_was_left(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    log = GrowingLog(path)
    assert list(log.look()) == []  # it is not there yet
    Journal(path).write("first")
    assert [event["event"] for event in log.look()] == ["first"]
    whole = b'{"time": "", "event": "second"}\n'
    with path.open("ab") as file:
        file.write(whole[:9])
    assert list(log.look()) == []  # a line that comes late
    with path.open("ab") as file:
        file.write(whole[9:])
    assert [event["event"] for event in log.look()] == ["second"]
    text = path.read_bytes()
    path.write_bytes(text + b"\0" * 30 + b"\n" + whole)  # as NFS may show a line
    assert list(log.look()) == []
    path.write_bytes(text + b'{"time": "", "event": "third", "n": 1}\n' + whole)
    assert [event["event"] for event in log.look()] == ["third", "second"]
    path.write_bytes(path.read_bytes() + b"\0" * 30 + b"\n" + whole)  # and after a crash for ever
    assert list(log.look()) == []
    assert [event["event"] for event in log.look()] == ["second"]
    (tmp_path / "other").write_bytes(whole)
    shutil.move(tmp_path / "other", path)  # the store was deleted and made again
    assert [event["event"] for event in log.look()] == ["second"]


def test_several_drivers_are_one_sweep(tmp_path: Path) -> None:
    clock = Clock()
    tallies = []
    for index in (1, 2):
        log = Log(tmp_path / f"events-{index}-of-4.jsonl")
        log.begin(f"{index}/4")
        for number in range(20):
            log.write(10 + number, "unit_started", unit=f"{number}")
            log.write(11 + number, "unit_done", unit=f"{number}", fits=30, failed=0)
        tallies.append(Tally(log.path, clock))
        tallies[-1].look()
    seen = together(tallies)
    assert seen.cells == 4000
    assert seen.cells_done == 2 * (100 + 200)
    assert seen.workers == 4
    assert seen.fits_per_second == pytest.approx(2 * 30)
    assert seen.left_s == pytest.approx((4000 - 600) * 3 / 60)


def test_while_a_driver_is_at_work_neither_store_nor_parts_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "results.zarr"
    run = run_folder(store).make()
    store.mkdir()
    log = Log(run.events)
    log.begin()

    def never(*arguments: Any) -> Any:
        raise AssertionError("the ledger was read")

    monkeypatch.setattr(Ledger, "read", never)
    shutil.rmtree(run.parts)
    clock = Clock()
    watching = Watching(store, clock)
    with hold(run.lease):
        for number in range(3):
            log.write(10 + number, "unit_done", unit=f"{number}", fits=30, failed=0)
            seen = watching.look()
            assert (seen.state, seen.progress.units) == ("running", number + 1)
            clock.now += HEARTBEAT_S


def test_a_driver_whose_heartbeat_stands_still_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "results.zarr"
    run = run_folder(store).make()
    store.mkdir()
    Log(run.events).begin()
    holder = {"nonce": "x", "host": "elsewhere", "pid": 1, "pids": "another machine"}
    run.lease.write_text(json.dumps(holder))
    work = Work("sweep", "small", "", total=3000, done=300, chunks=9)
    status = Standing(store, work, "process 1 on elsewhere")
    monkeypatch.setattr("hpc_sweep.watching.following.standing_of", lambda store: status)
    follows: list[NotBegun] = []
    monkeypatch.setattr("hpc_sweep.watching.following.not_begun", lambda run: follows)
    clock = Clock()
    watching = Watching(store, clock)
    assert watching.look().state == "running"
    clock.now += SILENT_S - 1
    assert watching.look().state == "running"
    clock.now += 2
    seen = watching.look()
    assert (seen.state, seen.facts()["share_done"]) == ("stopped", 0.1)
    assert seen.status is not None
    assert seen.status.driver is None  # as what is shown at the end
    follows.append(NotBegun("12", (), "PENDING (Priority)", False, ""))
    clock.now += ASK_EVERY_S
    assert watching.look().state == "queued"


def test_a_driver_whose_job_has_ended_is_gone(
    finished_half: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the queue says; of one that it does not know nobody can tell."""
    lease, states = run_folder(finished_half).lease, {"7": True, "8": False}
    monkeypatch.setattr("hpc_sweep.watching.standing.has_ended", lambda queue, job: states[job])
    for job, shown in (("7", "none; run"), ("8", "process 1 on elsewhere (job 8)")):
        holder = {"nonce": "x", "host": "elsewhere", "pid": 1, "pids": "another", "job": job}
        lease.write_text(json.dumps({**holder, "queue": "slurm:test"}))
        told = CliRunner().invoke(main, ["status", str(finished_half)]).output
        assert f"driver:     {shown}" in told


def test_the_queue_is_not_asked_at_every_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "results.zarr"
    run = run_folder(store).make()
    run.spec.write_text('{"name": "small"}')
    waits = NotBegun("12", (), "PENDING (Resources)", False, "")
    asked: list[str] = []

    def status(store: Path) -> Standing:
        asked.append("queue")
        return Standing(store, Work("sweep", "small", ""), not_begun=[waits])

    monkeypatch.setattr("hpc_sweep.watching.following.standing_of", status)
    clock = Clock()
    watching = Watching(store, clock)
    for _ in range(50):
        seen = watching.look()
        clock.now += 2
    assert seen.state == "queued"
    assert "PENDING (Resources)" in seen.progress.phase
    assert len(asked) == 100 // ASK_EVERY_S + 1


def test_what_is_not_there_is_waited_for_and_what_stays_damaged_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, clock = tmp_path / "results.zarr", Clock()
    watching = Watching(store, clock)
    assert watching.look().state == "absent"
    run_folder(store).make()
    assert watching.look().state == "absent"
    store.mkdir()  # without metadata: as while it is renamed, or for ever
    clock.now += ASK_EVERY_S
    assert watching.look().state == "absent"
    clock.now += SILENT_S + 1
    with pytest.raises(StoreError, match="no store of a sweep: it is an empty folder"):
        watching.look()


def test_a_stopped_sweep_ends_the_watch(finished_half: Path) -> None:
    result = CliRunner().invoke(main, ["status", str(finished_half), "--watch", "--json"])
    assert result.exit_code == EXIT_INTERRUPTED
    (line,) = result.output.splitlines()
    facts = json.loads(line)
    assert (facts["state"], facts["fits_done"], facts["fits"]) == ("stopped", 0, 48 * 3 * 3)
    journal = Journal(run_folder(finished_half).events)
    with (
        pytest.raises(ClusterError),
        told_of_its_end(Mock(), Mock(), Mock(), lambda told: journal.write("run_ended", **told)),
    ):
        raise ClusterError("no interface ib0")
    told = CliRunner().invoke(main, ["status", str(finished_half)]).output
    assert "driver:     none; run or submit the spec again to go on" in told
    assert "(result ClusterError)\nreason:     no interface ib0\n" in told


@pytest.fixture
def finished_half(spec: Spec) -> Path:
    """Return a store that was begun and never gone on with."""
    spec["models"] = spec["models"][:1]
    store = create(prepare(load_spec(spec)))
    store.run.make()
    return store.path


def test_options_of_watch(tmp_path: Path) -> None:
    for arguments in (
        ["a", "b", "--watch"],
        ["a", "--every", "3"],
        ["a", "--watch", "--every", "0"],
    ):
        assert CliRunner().invoke(main, ["status", *arguments]).exit_code == 2
