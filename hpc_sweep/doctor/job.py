"""The doctor's small job: submitted where workers go, waited for, and never left behind."""

from __future__ import annotations

import contextlib
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from hpc_sweep.clusters.certificates import make_certificates
from hpc_sweep.clusters.jobqueue import JobQueue
from hpc_sweep.clusters.queue import (
    ENDING,
    JobState,
    Queue,
    QueueSilentError,
    is_for_maintenance,
    log_tail,
)
from hpc_sweep.directives import worker_changes
from hpc_sweep.doctor.checks import Check, Seen, Verdict, fail, look, ok, warn
from hpc_sweep.doctor.messages import await_message, leave
from hpc_sweep.doctor.route import addresses, call, listening
from hpc_sweep.doctor.scheduler import refusal
from hpc_sweep.errors import ClusterError, SpecError
from hpc_sweep.jobscripts import driver_job, driver_script
from hpc_sweep.spec import SweepSpec
from hpc_sweep.versions import LIBRARIES, differences, versions

WALLTIME = "00:10:00"
WORK_S = 300.0
"""How long the job may take once it runs."""
START_S = 60.0
"""How long a job that runs may take to say hello."""
SETTLE_S = 15.0
"""How long to look for the files of a job that has ended."""
FIRST_QUERIES_S = (3.0, 7.0, 15.0, 30.0)
QUERY_EVERY_S = 60.0
SLOW_LAG_S = 5.0
SKEW_S = 5.0

BUSY = re.compile(
    r"(None|Priority|Resources|Reservation|Licenses|BeginTime|Cleaning)?"
    r"|(QOS|Assoc)(Max|Grp(?!\w*Minutes))\w*|Prolog"
    r"|Not Running: (?!Queue not started).*"
)
"""Reasons to wait that pass by themselves, of Slurm and of PBS."""


@dataclass
class SmallJob:
    """A job that has been submitted, watched at a polite rate.

    Attributes
    ----------
    queue : Queue
        Its commands.
    id : str
        The job's id.
    say : callable
        Told when its state has changed.
    state : JobState or None
        What the queue said last.
    """

    queue: Queue
    id: str
    say: Callable[[str], None] = lambda text: None
    state: JobState | None = None
    _began: float = field(default_factory=time.monotonic)
    _queries: int = 0
    _unknown: int = 0
    _ended_at: float = 0.0

    def may_answer(self) -> bool:
        """Return whether it is worth to wait on; asks the queue when it is time to."""
        now = time.monotonic()
        if self._ended_at:
            return now - self._ended_at < SETTLE_S
        if now - self._began >= self._next_query():
            self._queries += 1
            before = str(self.state)
            if self.look():
                self._ended_at = now
            if str(self.state) != before:
                self.say(f"job {self.id}: {self.state}".removesuffix(" (None)"))
        return True

    def _next_query(self) -> float:
        few = len(FIRST_QUERIES_S)
        if self._queries < few:
            return FIRST_QUERIES_S[self._queries]
        return FIRST_QUERIES_S[-1] + QUERY_EVERY_S * (self._queries - few + 1)

    def look(self) -> bool:
        """Ask the queue; return whether the job has ended."""
        try:
            found = self.queue.states([self.id])
        except QueueSilentError:
            return False
        if not found:  # a queue that keeps no history forgets jobs that ended
            self._unknown += 1
            return self.state is not None or self._unknown > 1
        self.state = found[0]
        return self.state.ended

    def end(self, *, answered: bool) -> None:
        """See it end, cancel it otherwise, and wait until its files are no longer written.

        Raises
        ------
        QueueSilentError
            When it could not be cancelled.
        """
        if (answered and self._ends_within((1, 2, 4))) or self.look():
            return
        try:
            if self.state is None or self.state.state not in ENDING:
                self.queue.cancel([self.id])
        finally:
            self._ends_within((1, 2, 4, 8, 15))

    def _ends_within(self, pauses: Sequence[float]) -> bool:
        for pause in pauses:
            time.sleep(pause)
            if self.look():
                return True
        return False


def node_checks(
    spec: SweepSpec,
    cluster: JobQueue,
    folder: Path,
    where: str,
    *,
    with_data: bool,
    wait_s: float,
    say: Callable[[str], None],
) -> list[Check]:
    """Submit the job, and return what it saw and what was seen of it from here.

    Parameters
    ----------
    spec : SweepSpec
        The spec.
    cluster : JobQueue
        Made of it, not started.
    folder : Path
        Empty folder beside the store.
    where : str
        This host.
    with_data : bool
        Whether the spec's data and models are looked at.
    wait_s : float
        How long to wait for the job's start.
    say : callable
        Told what is going on.
    """
    nodes, driver = cluster.interfaces()
    keys = folder / "keys"
    try:
        keys.mkdir(mode=0o700)
        make_certificates(keys)
        with listening(driver, keys) as address:
            request = {
                "spec": spec.model_dump_json() if with_data else None,
                "interface": nodes,
                "interfaces": ", ".join(f"{name} ({ip})" for name, ip in addresses().items()),
                "driver": address,
                "workers": cluster.workers,
                "jobs": cluster.jobs,
                "workers_per_job": cluster.workers_per_job,
                "scratch": _scratch(spec),
            }
            leave(folder / "request.json", request)
            checks = _submitted(spec, cluster, folder, where, wait_s, say)
    except (ClusterError, SpecError, OSError) as error:
        remedy = "change what the message names in the cluster section"
        return [Check("small job", where, Verdict.FAIL, refusal(error), remedy)]
    return checks if _driver_may_be_here(spec) else [_without_route(c) for c in checks]


def _submitted(
    spec: SweepSpec,
    cluster: JobQueue,
    folder: Path,
    where: str,
    wait_s: float,
    say: Callable[[str], None],
) -> list[Check]:
    """Submit the job, return what came of it, and see it end."""
    job = None
    try:
        with _undisturbed():
            job = _submit(spec, cluster, folder, say)
        say(f"submitted job {job.id}; waiting up to {wait_s:.0f} s for it to start")
        return _conversation(job, folder, where, wait_s)
    finally:
        if job is not None:
            _end(job, folder, say)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Let signals wait: a job must not be submitted without its id being known."""
    late = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, late)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end(job: SmallJob, folder: Path, say: Callable[[str], None]) -> None:
    answered = (folder / "answer.json").exists()
    try:
        job.end(answered=answered)
    except QueueSilentError as error:
        if not answered:  # else it has done its work, and ends by itself
            say(f"job {job.id} was not cancelled, it ends within {WALLTIME}: {error}")


def _scratch(spec: SweepSpec) -> tuple[str | None, int]:
    """Return the nodes' local folder, and the bytes that are asked for in it."""
    scratch = spec.cluster.scratch
    return (None, 0) if scratch is None else (scratch.folder, int(scratch.size or 0))


def _submit(
    spec: SweepSpec, cluster: JobQueue, folder: Path, say: Callable[[str], None]
) -> SmallJob:
    """Submit the job as a driver's is, but to where workers go."""
    wanted = cluster.completed()
    command = [sys.executable, "-m", "hpc_sweep.doctor.node", str(folder)]
    job = replace(driver_job(wanted, command, str(folder)), name="doctor", walltime=WALLTIME)
    if wanted.place == "worker_jobs":
        changes = worker_changes(wanted)
        job = replace(job, queue=wanted.queue, account=wanted.account, changes=changes)
    script = folder / "doctor.sh"
    script.write_text(driver_script(cluster.queue.kind, job), encoding="utf-8")
    return SmallJob(cluster.queue, cluster.queue.submit(script), say)


def _conversation(job: SmallJob, folder: Path, where: str, wait_s: float) -> list[Check]:
    """Talk with the job over files, and return all checks."""
    began = time.monotonic()
    hello = await_message(folder / "hello.json", wait_s, job.may_answer)
    if hello is None and not job.look():  # it may have started at the last moment
        late = START_S if job.state is not None and job.state.state == "RUNNING" else 0.0
        hello = await_message(folder / "hello.json", late, job.may_answer)
    if hello is None:
        return [look("small job", where, partial(_why_silent, job, folder, wait_s))]
    node, waited = str(hello["host"]), time.monotonic() - began
    checks = [look("small job", node, lambda: ok(f"job {job.id} ran here after {waited:.0f} s"))]
    if hello["address"] is not None:
        address = (str(hello["address"][0]), int(hello["address"][1]))
        remedy = (
            "the driver calls workers there: name another cluster.interface, or hpc-sweep submit"
        )
        checks.append(
            look("route to a worker", where, partial(call, address, folder / "keys", remedy))
        )
    checks += _shared_folder(job, folder, node)
    answer = await_message(folder / "answer.json", WORK_S, job.may_answer)
    if answer is None:
        job.look()
        text = f"job {job.id} said no more, {job.state}; {log_tail(folder, job.id)}"
        remedy = "what the log says; the checks that it did not come to are missing here"
        return [*checks, Check("small job", node, Verdict.FAIL, text, remedy)]
    checks.append(look("versions", node, partial(_same_versions, answer["versions"])))
    return checks + [
        Check(**{**check, "verdict": Verdict(check["verdict"])}) for check in answer["checks"]
    ]


def _driver_may_be_here(spec: SweepSpec) -> bool:
    """Return whether a driver may run on this host."""
    cluster = spec.cluster
    refused = cluster.outside_jobs == "refuse"
    return not refused and cluster.place == "worker_jobs"


def _without_route(check: Check) -> Check:
    """Return a check for drivers that never run on this host."""
    failed = check.verdict is Verdict.FAIL and check.name.startswith("route ")
    return replace(check, verdict=Verdict.WARN) if failed else check


def _why_silent(job: SmallJob, folder: Path, wait_s: float) -> Seen:
    """Say why the job never said hello."""
    ended = job.look()
    state = job.state
    if ended or state is None:
        tail = log_tail(folder, job.id)
        text = f"job {job.id} ended without a word, {state or 'not in the queue'}; {tail}"
        remedy = (
            f"nodes must see {folder.parent} and {sys.prefix}; cluster.prologue must load what "
            "Python needs there"
        )
        return fail(text, remedy)
    text = f"job {job.id} did not start within {wait_s:.0f} s: {state}"
    if state.state == "RUNNING":
        return fail(
            f"job {job.id} runs, but nothing that it writes into {folder} is seen here",
            "put output.store on a file system that nodes and this host share",
        )
    if BUSY.fullmatch(state.reason) or is_for_maintenance(state):
        return warn(text, "the queue is busy: try again later, or with a longer --wait")
    return fail(text, "remove what the queue's reason names: another queue, account or size")


def _shared_folder(job: SmallJob, folder: Path, node: str) -> list[Check]:
    """Send a file there and get one back: the lag of both ways, and the clocks' difference."""
    sent_at, sent = time.time(), time.monotonic()
    leave(folder / "ping.json", {"time": sent_at})
    pong = await_message(folder / "pong.json", WORK_S, job.may_answer)
    lag = time.monotonic() - sent
    if pong is None or not pong["seen"]:
        seen = fail(
            f"what is written here into {folder} is not seen there within {lag:.0f} s",
            "put output.store on a file system that nodes and this host share",
        )
        return [look("shared folder", node, lambda: seen)]
    text = f"{folder.parent}: there and back in {lag:.2f} s"
    slow = "files show late; shorter attribute caching of the file system (actimeo) helps"
    shared = warn(text, slow) if lag > SLOW_LAG_S else ok(text)
    skew = _skew(pong["time"], sent_at, lag)
    return [look("shared folder", node, lambda: shared), look("clock", node, lambda: skew)]


def _skew(there: float, sent_at: float, lag: float) -> Seen:
    """Compare a moment on the node's clock with the two between which it was."""
    ahead = there - sent_at - lag / 2
    text = (
        f"{abs(ahead):.2f} s {'ahead of' if ahead > 0 else 'behind'} this host (± {lag / 2:.2f} s)"
    )
    certain = abs(ahead) - lag / 2
    if certain < SKEW_S:
        return ok(text)
    remedy = (
        "have the clocks set (chrony, ntp): a new certificate is not valid yet where it is earlier"
    )
    return fail(text, remedy) if ahead < 0 else warn(text, remedy)


def _same_versions(there: dict[str, Any]) -> Seen:
    """Compare the versions of both sides."""
    here = versions()
    remedy = "run the same environment on both sides; cluster.prologue may load another one"
    different = [
        f"{name} {version} here, {there.get(name, 'missing')} there"
        for name, version in here.items()
        if name != "cpu" and there.get(name) != version
    ]
    grave = differences({name: there.get(name, "0") for name in LIBRARIES})
    if grave:
        said = [there["error"]] if "error" in there else []
        return fail(", ".join([*said, *different]), remedy)
    if different:
        return warn(", ".join(different), remedy)
    text = (
        f"hpc-sweep {here['hpc-sweep']}, scikit-learn {here['scikit-learn']}, dask {here['dask']}"
    )
    other = there["cpu"]
    cpu = "same CPU" if other == here["cpu"] else f"{here['cpu']} here, {other} there"
    return ok(f"{text} and others on both sides; {cpu}")
