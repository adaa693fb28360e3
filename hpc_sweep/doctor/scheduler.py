"""Looks at the scheduler: its commands, its limits, and what it would say to our jobs."""

from __future__ import annotations

import getpass
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from hpc_sweep.clusters.jobqueue import JobQueue
from hpc_sweep.clusters.queue import QueueSilentError, ask, clock, seconds, submit
from hpc_sweep.doctor.checks import Check, Seen, Verdict, fail, look, ok, skipped, warn
from hpc_sweep.errors import ClusterError, SpecError, listed, nearest
from hpc_sweep.jobscripts import driver_job, driver_script, with_workers
from hpc_sweep.plan import format_bytes

COMMANDS = {
    "slurm": ("sbatch", "squeue", "scancel", "scontrol"),
    "pbs": ("qsub", "qstat", "qdel"),
}
_BYTES = re.compile(r"(\d+)([kmgtp]?)b", re.IGNORECASE)
LINKS = 3
"""Driver jobs of a chain that are in the queue at the same time."""


@dataclass(frozen=True)
class Part:
    """What a scheduler says of one of its queues (Slurm: partitions).

    Attributes
    ----------
    name : str
        Its name.
    closed : str
        Why jobs do not run in it, or ``""``.
    walltime_s : float or None
        The longest walltime; None where there is no limit.
    jobs : int or None
        How many jobs one user may have in it.
    """

    name: str
    closed: str = ""
    walltime_s: float | None = None
    jobs: int | None = None


@dataclass(frozen=True)
class Node:
    """What a scheduler says of a node: its size, and whether it takes jobs."""

    cores: int
    memory_bytes: int
    up: bool


@dataclass(frozen=True)
class Limits:
    """What a scheduler says of itself.

    Attributes
    ----------
    parts : mapping of str to Part
        Its queues by name.
    default : str
        The queue of jobs that name none, or ``""``.
    array_size : int or None
        Largest index of an array.
    jobs : int or None
        How many jobs one user may have.
    """

    parts: Mapping[str, Part] = field(default_factory=dict)
    default: str = ""
    array_size: int | None = None
    jobs: int | None = None


def scheduler_checks(cluster: JobQueue, folder: Path, where: str) -> list[Check]:
    """Look at commands, limits and, where the scheduler says that, whether jobs would be taken.

    Parameters
    ----------
    cluster : JobQueue
        Of the spec, not started.
    folder : Path
        Where scripts may be written.
    where : str
        This host.
    """
    kind = cluster.queue.kind
    checks = [look("scheduler commands", where, partial(commands, kind))]
    if shutil.which(cluster.queue.submit_command) is None:
        return checks
    try:
        limits = LIMITS[kind]()
    except QueueSilentError as error:
        seen = fail(str(error), "wait until the scheduler answers, or ask the site")
        return [*checks, look("scheduler", where, lambda: seen)]
    spec = cluster.spec
    alone = spec.place == "one_job"  # driver and workers share one job
    roles = {} if alone else {"workers": (spec.queue, spec.walltime)}
    driver = (spec.driver.queue or spec.queue, spec.driver.walltime or spec.walltime)
    if driver not in roles.values():
        roles["driver"] = driver
    for role, (queue, walltime) in roles.items():
        name = f"queue of the {role}"
        checks.append(look(name, where, partial(queue_limits, limits, queue, walltime, role)))
    jobs = 0 if alone else cluster.jobs
    checks.append(look("job limits", where, partial(job_limits, limits, spec.queue, jobs)))
    scripts: dict[str, Callable[[], str]] = {"driver job": partial(_driver, cluster, folder)}
    if not alone:
        scripts["worker job"] = cluster.job_script
    faults = "; ".join(map(str, cluster.faults()))
    if faults:
        checks.append(look("worker job", where, lambda: skipped(f"not known yet: {faults}")))
    elif kind == "slurm":
        checks += [
            look(name, where, partial(preflight, script, folder))
            for name, script in scripts.items()
        ]
    else:
        cores, memory_bytes = cluster.workers_per_job, _workers_bytes(cluster)
        memory_bytes += int(spec.driver.memory) if alone else 0
        checks.append(look("nodes", where, partial(nodes_that_fit, cores, memory_bytes)))
    return checks


def commands(kind: str) -> Seen:
    """Look for the scheduler's commands and ask for its version."""
    missing = [name for name in COMMANDS[kind] if shutil.which(name) is None]
    if missing:
        remedy = "go to a login node, load the scheduler's module, or use --cluster local"
        return fail(f"{', '.join(missing)} not on PATH", remedy)
    command = [COMMANDS[kind][0], "--version"]
    try:
        version = ask(command).strip()
    except QueueSilentError as error:
        words = " ".join(str(error).split())[:200]
        return warn(f"no version: {words}", "see that these are the site's own commands")
    return ok(f"{', '.join(COMMANDS[kind])}; {version}")


def queue_limits(limits: Limits, name: str | None, walltime: str | None, role: str) -> Seen:
    """Compare what is asked for with what a queue allows; of several the best one counts."""
    if not (name or limits.default):
        return skipped("no queue is named, and none is known to be the default")
    key = "cluster.queue" if role == "workers" else "cluster.driver.queue"
    # Slurm takes several partitions, PBS a queue of another server
    places = [
        part.partition("@")[0] or limits.default for part in (name or limits.default).split(",")
    ]
    unknown = [place for place in places if place not in limits.parts]
    if unknown:
        hint = nearest(unknown[0], limits.parts)
        return fail(f"no queue '{unknown[0]}'{hint}", f"set {key} to one of {listed(limits.parts)}")
    seen = [_of_queue(limits, place, walltime, key) for place in places]
    return next((each for each in seen if each.verdict is Verdict.OK), seen[0])


def _of_queue(limits: Limits, place: str, walltime: str | None, key: str) -> Seen:
    part = limits.parts[place]
    if part.closed:
        open_ = [other.name for other in limits.parts.values() if not other.closed]
        return fail(f"{place}: {part.closed}", f"set {key} to one of {listed(open_)}, or wait")
    asked = seconds(walltime or "")
    most = "no limit" if part.walltime_s is None else clock(part.walltime_s)
    text = f"{place}: walltime {walltime or 'not set'}, longest {most}"
    if asked is not None and part.walltime_s is not None and asked > part.walltime_s:
        return fail(text, f"set {key.replace('queue', 'walltime')} to at most {most}")
    return ok(text)


def job_limits(limits: Limits, queue: str | None, workers: int) -> Seen:
    """Compare the number of jobs with what one user may have."""
    part = limits.parts.get(queue or limits.default, Part(""))
    most = min((n for n in (limits.jobs, part.jobs) if n is not None), default=None)
    array = "unknown" if limits.array_size is None else f"below {limits.array_size:,}"
    text = (
        f"worker jobs: {workers}, driver jobs: up to {LINKS}, limit of a user: "
        f"{'none known' if most is None else most}; array indices: {array}"
    )
    if most is not None and workers + LINKS > most:
        remedy = "more workers_per_node, fewer workers; the rest waits until others end"
        return warn(text, remedy)
    return ok(text)


def preflight(script: Callable[[], str], folder: Path) -> Seen:
    """Ask sbatch whether it would take a script; nothing is submitted."""
    remedy = "change what the message names in the cluster section, or in the machine's profile"
    file = folder / "preflight.sh"
    try:
        file.write_text(script(), encoding="utf-8")
        submit(["sbatch", "--test-only", str(file)], folder)
    except (ClusterError, SpecError) as error:
        return fail(refusal(error), remedy)
    finally:
        file.unlink(missing_ok=True)
    return ok("sbatch --test-only takes it")


def refusal(error: Exception) -> str:
    """Return an error's text in one line, without its opening."""
    return " ".join(str(error).split()).removeprefix("the queue refused the driver's job: ")


def _driver(cluster: JobQueue, folder: Path) -> str:
    """Return a script as of the driver's job, which does nothing."""
    asked = cluster.completed()
    job = driver_job(asked, ["true"], str(folder))
    if cluster.spec.place == "one_job":
        cores, memory_bytes = cluster.workers_per_job, _workers_bytes(cluster)
        job = with_workers(job, asked, cluster.jobs, cores, memory_bytes)
    return driver_script(cluster.queue.kind, job)


def _workers_bytes(cluster: JobQueue) -> int:
    return cluster.workers_per_job * (cluster.worker_memory_bytes() or 0)


def nodes_that_fit(cores: int, memory_bytes: int) -> Seen:
    """Look for nodes that are large enough: PBS takes a job that fits nowhere, and lets it wait."""
    if shutil.which("pbsnodes") is None:
        return skipped("no pbsnodes on PATH")
    nodes = parse_pbsnodes(ask(["pbsnodes", "-a"]))
    if not nodes:
        return skipped("pbsnodes tells no sizes")
    wanted = f"{cores} cores and {format_bytes(memory_bytes)} wanted on a node"
    fitting = [n for n in nodes if n.cores >= cores and n.memory_bytes >= memory_bytes]
    remedy = "lower cluster.workers_per_node or cluster.memory"
    if not fitting:
        largest = max(nodes, key=lambda node: (node.cores, node.memory_bytes))
        have = f"{largest.cores} cores and {format_bytes(largest.memory_bytes)}"
        return fail(f"{wanted}; none has that, the largest {have}", remedy)
    up = sum(node.up for node in fitting)
    text = f"{wanted}: {up} of {len(nodes)} nodes"
    return ok(text) if up else warn(f"{text}, {len(fitting)} that are down", f"wait, or {remedy}")


def slurm_limits() -> Limits:
    """Ask Slurm, and its accounting where there is one."""
    config = ask(["scontrol", "show", "config"])
    parts = ask(["scontrol", "--oneliner", "show", "partition"])
    query = ["sacctmgr", "--noheader", "--parsable2", "show", "associations"]
    try:
        jobs = ask([*query, f"user={getpass.getuser()}", "format=MaxJobs,MaxSubmitJobs"])
    except QueueSilentError:  # no accounting, or none of the users' business
        jobs = ""
    return parse_scontrol(config, parts, jobs)


def parse_scontrol(config: str, partitions: str, associations: str = "") -> Limits:
    """Return limits out of ``scontrol show config`` and ``scontrol --oneliner show partition``.

    `associations` is what ``sacctmgr`` prints of ``MaxJobs,MaxSubmitJobs`` with ``--parsable2``:
    only the second refuses a job, the first lets it wait.
    """
    parts, default = {}, ""
    for line in partitions.splitlines():
        facts = dict(word.split("=", 1) for word in line.split() if "=" in word)
        if "PartitionName" not in facts:
            continue
        name, state = facts["PartitionName"], facts.get("State", "UP")
        closed = "" if state == "UP" else f"its state is {state}"
        parts[name] = Part(name, closed, seconds(facts.get("MaxTime", "")))
        default = name if facts.get("Default") == "YES" else default
    array = re.search(r"^MaxArraySize\s*=\s*(\d+)", config, re.MULTILINE)
    submits = re.findall(r"^\d*\|(\d+)$", associations, re.MULTILINE)
    jobs = max(map(int, submits), default=None)
    return Limits(parts, default, int(array[1]) if array else None, jobs)


def pbs_limits() -> Limits:
    """Ask PBS."""
    queues = ask(["qstat", "-Q", "-f"])
    try:
        server = ask(["qstat", "-B", "-f"])
    except QueueSilentError:  # not every site lets users ask
        server = ""
    return parse_qstat_full(queues, server)


def parse_qstat_full(queues: str, server: str = "") -> Limits:
    """Return limits out of ``qstat -Q -f`` and ``qstat -B -f`` (long lines go on after a tab)."""
    parts = {}
    for name, facts in _blocks(queues, "Queue"):
        closed = ""
        if facts.get("enabled", "True").lower() in ("false", "no"):
            closed = "it takes no jobs (enabled = False)"
        elif facts.get("started", "True").lower() in ("false", "no"):
            closed = "its jobs do not start (started = False)"
        walltime_s = seconds(facts.get("resources_max.walltime", ""))
        parts[name] = Part(name, closed, walltime_s, _per_user(facts))
    whole = next((facts for _, facts in _blocks(server, "Server")), {})
    array = whole.get("max_array_size", "")
    default = whole.get("default_queue", "")
    return Limits(parts, default, int(array) if array.isdecimal() else None, _per_user(whole))


def parse_pbsnodes(text: str) -> list[Node]:
    """Return hosts out of ``pbsnodes -a``; the parts of a host are put together."""
    hosts: dict[str, Node] = {}
    for block in re.split(r"\n(?=\S)", text):
        facts = dict(re.findall(r"^\s+([\w.]+) = (.*)$", block, re.MULTILINE))
        cores = facts.get("resources_available.ncpus", "")
        memory = _BYTES.fullmatch(facts.get("resources_available.mem", "").strip())
        if not cores.strip().isdecimal() or memory is None:
            continue
        name = facts.get("resources_available.host", block.split("\n", 1)[0].strip())
        up = not re.search("down|offline|unknown", facts.get("state", ""))
        size = int(memory[1]) * 1024 ** " kmgtp".index(memory[2].lower() or " ")
        part = hosts.get(name, Node(0, 0, up))
        hosts[name] = Node(part.cores + int(cores), part.memory_bytes + size, part.up and up)
    return list(hosts.values())


def _blocks(text: str, word: str) -> list[tuple[str, dict[str, str]]]:
    """Return name and attributes of each object that qstat describes."""
    found: list[tuple[str, dict[str, str]]] = []
    for line in re.sub(r"\n\t(?!\w+(\.\w+)? = )", "", text).splitlines():
        head = re.match(rf"{word}:\s*(\S+)", line)
        key, equals, value = line.strip().partition(" = ")
        if head:
            found.append((head[1], {}))
        elif equals and found:
            found[-1][1][key] = value.strip()
    return found


def _per_user(facts: Mapping[str, str]) -> int | None:
    """Return how many jobs one user may have queued."""
    limits = [
        int(number)
        for name in ("max_queued", "max_user_queuable")
        for number in re.findall(
            r"(?:u:PBS_GENERIC=|^)(\d+)", facts.get(name, "").strip('[]" ').replace('"', "")
        )
    ]
    return min(limits, default=None)


LIMITS = {"slurm": slurm_limits, "pbs": pbs_limits}
