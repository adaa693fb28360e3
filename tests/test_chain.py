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
from hpc_sweep.errors import ClusterError, Interrupted, NoProgressError, NoWorkersError
from hpc_sweep.spec import SweepSpec, load_spec
from hpc_sweep.store import RunFolder, read_events, run_folder

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
    counts = iter([(0, 0), (1, 0) if added else (0, 0)])
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
