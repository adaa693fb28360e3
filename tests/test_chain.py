"""Links of a chain: what counts as progress, and successors that the queue cannot take now."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from conftest import Spec

from hpc_sweep import chain
from hpc_sweep.clusters import JobState, NotNowError, Queue, QueueSilentError
from hpc_sweep.driverjobs import other_drivers
from hpc_sweep.errors import ClusterError, Interrupted, NoProgressError, NoWorkersError
from hpc_sweep.spec import SweepSpec, load_spec
from hpc_sweep.store import Ledger, RunFolder, read_events, run_folder
from hpc_sweep.sweep import execute

LINK_S = 1000.0
Event = tuple[float, str, dict[str, object]]
"""How many seconds ago, what, and its facts."""


class FakeQueue(Queue):
    """A queue whose answers are given beforehand; jobs get the numbers 2, 3, …"""

    kind = "slurm"
    submit_command = "true"
    refusals: Sequence[Exception | None] = ()
    asked = 0
    cancelled: Sequence[str] = ()

    def nodes(self) -> list[str]:
        return []

    def launcher(self, node: str, cpus: int) -> list[str]:
        return []

    def current_job(self) -> str:
        return "1"

    def submit(
        self, script: Path, after: str | None = None, walltime_s: float | None = None
    ) -> str:
        self.asked += 1
        refusal = self.refusals[self.asked - 1] if self.asked <= len(self.refusals) else None
        if refusal is not None:
            raise refusal
        return str(self.asked + 1)

    def cancel(self, jobs: Sequence[str]) -> None:
        self.cancelled = jobs

    def states(self, jobs: Sequence[str]) -> list[JobState]:
        return [JobState(job, "RUNNING", "", ended=False, left_s=LINK_S) for job in jobs]


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> FakeQueue:
    made = FakeQueue()
    monkeypatch.setattr(chain, "make_queue", lambda kind: made)
    return made


@pytest.fixture
def sweep(spec: Spec) -> SweepSpec:
    """Return a spec with its run folder; the store is made by the first link that does work."""
    spec["cluster"] = {"kind": "slurm", "memory": "1GB", "walltime": "01:00:00"}
    loaded = load_spec(spec)
    run_folder(loaded.output.store).make()
    return loaded


def log(run: RunFolder, *events: Event) -> None:
    """Append events to the log of a run folder."""
    with run.events.open("a") as file:
        for ago, kind, facts in events:
            moment = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(time.time() - ago))
            file.write(json.dumps({"time": moment, "event": kind, **facts}) + "\n")


def link(
    sweep: SweepSpec, ending: Exception, *events: Event, said: list[str] | None = None
) -> None:
    """Be a link that began `LINK_S` ago, has these events, and ends in this way."""
    say = (said if said is not None else []).append
    with chain.chain_link(sweep, say, lambda: time.time() - LINK_S):
        log(run_folder(sweep.output.store), *events)
        raise ending


@pytest.mark.parametrize(
    ("share", "added", "ends"), [(0.7, False, True), (0.3, False, False), (0.7, True, False)]
)
def test_what_ends_a_chain(
    sweep: SweepSpec,
    queue: FakeQueue,
    monkeypatch: pytest.MonkeyPatch,
    share: float,
    added: bool,
    ends: bool,
) -> None:
    """Workers for most of the time and nothing added; those who came late may need one more."""
    counts = iter([(0, 0, 0), (1, 0, 0) if added else (0, 0, 0)])
    monkeypatch.setattr(chain, "_done", lambda spec: next(counts))
    workers = (LINK_S * share, "workers", {"workers": 3})
    with pytest.raises(NoProgressError if ends else Interrupted, match="drained before its end"):
        link(sweep, Interrupted("drained before its end"), workers, (0.0, "run_ended", {}))
    events = [event["event"] for event in read_events(run_folder(sweep.output.store).events)]
    assert ("chain_ended" in events) == ends
    assert list(queue.cancelled) == (["2"] if ends else [])


def test_workers_that_went_do_not_count(sweep: SweepSpec, queue: FakeQueue) -> None:
    """Nor do those of an earlier link, which was killed, so that its log has no end."""
    earlier = (5000.0, "workers", {"workers": 3})
    log(run_folder(sweep.output.store), earlier)
    some, none = (900.0, "workers", {"workers": 3}), (600.0, "workers", {"workers": 0})
    with pytest.raises(NoWorkersError):
        link(sweep, NoWorkersError("no worker within 600 s"), some, none, (0.0, "run_ended", {}))
    assert queue.cancelled == ()


@pytest.mark.parametrize(
    ("refusals", "asked"),
    [
        ([NotNowError("the queue does not answer")], 2),
        ([QueueSilentError("squeue failed")], 2),
        ([ClusterError("the queue refused the driver's job: Access/permission denied")], 1),
        ([], 1),
    ],
)
def test_a_successor_is_asked_for_again_at_the_end(
    sweep: SweepSpec, queue: FakeQueue, refusals: list[Exception], asked: int
) -> None:
    """Only where the queue asked to wait."""
    queue.refusals = refusals
    said: list[str] = []
    with pytest.raises(Interrupted):
        link(sweep, Interrupted("drained before its end"), said=said)
    assert queue.asked == asked
    assert ("queued job 3 to go on after this one" in said) == (asked == 2)


# --- links that are killed -------------------------------------------------------------------

STOOD = "cells_done", "chunks_folded", "answers"
NOW = (6, 1, 0)
"""Cells done and chunks folded when the next link begins."""


def submitted(run: RunFolder, job: str, after: str | None) -> None:
    log(run, (5000.0, "driver_submitted", {"job": job, "after": after, "kind": "slurm"}))


def ran(run: RunFolder, fate: str, job: str, done: tuple[int, ...] = NOW) -> None:
    """Log a run that found the ledger so: ``killed`` with workers, ``alone`` without, ``ended``."""
    facts = {"job": job, "workers": 3} | dict(zip(STOOD, done, strict=True))
    log(run, (4000.0, "run_started", facts))
    if fate == "alone":
        log(run, (3990.0, "workers", {"workers": 0}))
    else:
        # a driver may die between the two that tell of its workers, and after they went
        log(run, (3990.0, "workers_ready", {"workers": 3}), (3980.0, "workers", {"workers": 0}))
    if fate == "ended":
        log(run, (3000.0, "run_ended", {}))


def begins(sweep: SweepSpec, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Return whether the next link does, or ends the chain."""
    monkeypatch.setattr(chain, "_done", lambda spec: NOW)
    try:
        link(sweep, Interrupted("drained before its end"))
    except NoProgressError:
        return False
    except Interrupted:
        return True
    raise AssertionError


@pytest.mark.parametrize(
    ("fates", "ends"),
    [
        (["killed", "killed", "killed"], True),
        (["killed", "killed"], False),
        (["alone", "alone", "alone", "alone"], False),
        (["killed", "alone", "killed"], False),
        (["killed", "alone", "killed", "ended", "killed"], True),
        (["killed", "killed", "ended", "ended"], False),
    ],
)
def test_which_links_count(
    sweep: SweepSpec,
    queue: FakeQueue,
    monkeypatch: pytest.MonkeyPatch,
    fates: list[str],
    ends: bool,
) -> None:
    run = run_folder(sweep.output.store)
    for number, fate in enumerate(fates):
        submitted(run, str(10 + number), None if number == 0 else str(9 + number))
        ran(run, fate, str(10 + number))
    assert begins(sweep, monkeypatch) != ends


@pytest.mark.parametrize(
    ("found", "ends"),
    [
        ([NOW, NOW, NOW], True),
        ([(0, 0, 0), (0, 0, 0), (0, 0, 0)], False),  # the last one did something
        ([(5, 1, 0), NOW, NOW], False),
        ([NOW, (5, 1, 0), NOW, NOW], False),  # a part was lost, and made again
        ([(6, 0, 0), (6, 0, 0), (6, 0, 0)], False),  # it folded what there was
        ([(6, 1, 3), NOW, NOW], False),  # a search had answers, and its part is not yet folded
        ([(5, 1, 0), NOW, NOW, NOW], True),
    ],
)
def test_a_ledger_that_moves_begins_the_count_anew(
    sweep: SweepSpec,
    queue: FakeQueue,
    monkeypatch: pytest.MonkeyPatch,
    found: list[tuple[int, ...]],
    ends: bool,
) -> None:
    run = run_folder(sweep.output.store)
    submitted(run, "10", None)
    for done in found:  # the queue ran the same job again each time, as after a node's failure
        ran(run, "killed", "10", done)
    assert begins(sweep, monkeypatch) != ends


def test_a_new_submission_begins_the_count_anew(
    sweep: SweepSpec, queue: FakeQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor do runs by hand count, which a person may have killed."""
    run = run_folder(sweep.output.store)
    submitted(run, "10", None)
    for _ in range(3):
        ran(run, "killed", "10")
    submitted(run, "11", None)
    ran(run, "killed", "")
    ran(run, "killed", "11")
    ran(run, "killed", "11")
    assert begins(sweep, monkeypatch)


def test_killed_links_end_the_chain_with_one_message(
    sweep: SweepSpec, queue: FakeQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_folder(sweep.output.store)
    for job, after in [("10", None), ("11", "10"), ("12", "11"), ("1", "12"), ("14", "1")]:
        submitted(run, job, after)
    for job in ("10", "11", "12"):
        ran(run, "killed", job)
    (run.logs / "driver-12.log").write_text("Detected 1 oom_kill event in StepId=12.batch")
    assert not begins(sweep, monkeypatch)
    assert queue.asked == 0
    assert "14" in queue.cancelled
    assert "1" not in queue.cancelled
    *_, last = read_events(run.events)
    assert last["event"] == "chain_ended"
    for words in (
        "3 links (jobs 10, 11, 12) were killed while they had workers",
        "6 cells done and 1 result chunks folded",
        "cluster.driver.memory or cluster.driver.walltime, or ask hpc-sweep doctor",
        str(run.logs),
        "Detected 1 oom_kill event",
    ):
        assert words in last["reason"]


def test_a_run_tells_where_the_ledger_stood(spec: Spec) -> None:
    """In the same numbers that the next link compares it with."""
    loaded = load_spec(spec)
    store = execute(loaded).store
    (store.path / "status" / "c.0.0.0").unlink()
    ledger = chain._done(loaded)
    assert 0 < ledger[1] < Ledger.read(store).n_chunks
    execute(loaded)
    events = read_events(store.run.events)
    first, second = (event for event in events if event["event"] == "run_started")
    assert [first[name] for name in STOOD] == [0, 0, 0]
    assert [second[name] for name in STOOD] == [*ledger]


def test_successors_on_another_cluster_are_left_alone(
    sweep: SweepSpec, queue: FakeQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their ids may be those of other jobs of the same user."""
    monkeypatch.setattr(queue, "name", lambda: "slurm:here")
    run = run_folder(sweep.output.store)
    names = {"20": "slurm:elsewhere", "21": "slurm:here", "22": "slurm"}
    for job, name in names.items():
        facts = {"job": job, "after": "1", "kind": "slurm", "queue": name}
        log(run, (10.0, "driver_submitted", facts))
    assert other_drivers(queue, run, "1") == ["21", "22"]
