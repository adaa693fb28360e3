"""Scripts of driver jobs: from values to text, nothing else.

What users write reaches a script only where it cannot become shell: words of directives are
letters, digits and a few signs, the command is quoted. Directives and prologue are shell or
options by intent; the spec keeps each on one line.
"""

from __future__ import annotations

import importlib.resources
import re
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from hpc_sweep.errors import Fault, SpecError
from hpc_sweep.spec import ClusterSpec

WORD = re.compile(r"[\w./:+@=,-]+")
"""What may stand in a directive."""


@dataclass(frozen=True)
class DriverJob:
    """What the script of a driver job is made of.

    Attributes
    ----------
    command : sequence of str
        What the job runs, unquoted.
    log_folder : str
        Where its log goes.
    memory_bytes : int
        Its memory, on each node.
    queue, account, walltime : str or None
        As the queue knows them; left out when None.
    directives, prologue : sequence of str
        Further options, and shell lines before the command.
    time_min : str or None
        Walltime down to which Slurm may shorten the job.
    name : str
        What the job is called, after ``hpc-sweep-``.
    nodes, cpus : int
        Nodes, and cores on each of them.
    """

    command: Sequence[str]
    log_folder: str
    memory_bytes: int
    queue: str | None = None
    account: str | None = None
    walltime: str | None = None
    directives: Sequence[str] = ()
    prologue: Sequence[str] = ()
    time_min: str | None = None
    name: str = "driver"
    nodes: int = 1
    cpus: int = 1


def driver_job(cluster: ClusterSpec, command: Sequence[str], log_folder: str) -> DriverJob:
    """Return the job that a spec's cluster gives to the driver."""
    driver = cluster.driver
    return DriverJob(
        command=command,
        log_folder=log_folder,
        memory_bytes=int(driver.memory),
        queue=driver.queue or cluster.queue,
        account=driver.account or cluster.account,
        walltime=driver.walltime or cluster.walltime,
        directives=driver.directives,
        prologue=cluster.prologue,
    )


def driver_script(kind: str, job: DriverJob) -> str:
    """Return the script of a driver job.

    Parameters
    ----------
    kind : str
        ``slurm`` or ``pbs``.
    job : DriverJob
        What it is made of.

    Raises
    ------
    SpecError
        When a value could not stand in a directive as it is.
    """
    from jinja2 import Environment, StrictUndefined

    words = {
        "cluster.driver.queue": job.queue,
        "cluster.driver.account": job.account,
        "cluster.driver.walltime": job.walltime,
        "cluster.time_min": job.time_min,
        "output.store": job.log_folder,
    }
    faults = [
        Fault(path, f"{word!r} cannot go into a job script; letters, digits and ._:+@=,-/ can")
        for path, word in words.items()
        if word is not None and not WORD.fullmatch(word)
    ]
    faults += [
        Fault(f"cluster.driver.{name}", f"{line!r} is more than one line")
        for name, lines in (("directives", job.directives), ("prologue", job.prologue))
        for line in lines
        if len(line.splitlines()) != 1
    ]
    if faults:
        raise SpecError(faults)
    place = importlib.resources.files("hpc_sweep") / "templates" / "jobs" / f"driver-{kind}.sh.j2"
    environment = Environment(  # noqa: S701, shell is no HTML
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, undefined=StrictUndefined
    )
    values = {
        **asdict(job),
        "command": shlex.join(job.command),
        "memory_mib": -(-job.memory_bytes // 1024**2),
    }
    return environment.from_string(place.read_text(encoding="utf-8")).render(values)
