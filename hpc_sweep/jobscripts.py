"""Scripts of driver jobs: from values to text, nothing else.

What users write reaches a script only where it cannot become shell: words of directives are
letters, digits and a few signs, the command is quoted. Directives and prologue are options or
shell by intent; each stays on one line.
"""

from __future__ import annotations

import importlib.resources
import itertools
import re
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.resources.abc import Traversable

from hpc_sweep import placeholders
from hpc_sweep.directives import (
    PREFIX,
    Changes,
    Size,
    driver_changes,
    rewritten,
    scratch_bytes,
    shared_changes,
)
from hpc_sweep.errors import Fault, SpecError
from hpc_sweep.spec import WORD, ClusterSpec

TEMPLATES = importlib.resources.files("hpc_sweep") / "templates" / "jobs"

CLOCK = re.compile(r"[0-9:-]+")
"""A walltime; with a comma PBS would read a further resource."""


@dataclass(frozen=True)
class DriverJob:
    """What the script of a driver job is made of.

    Attributes
    ----------
    command : sequence of str
        What the job runs, unquoted.
    log_folder : str
        Where its log goes.
    size : Size
        What it asks for.
    changes : Changes
        How the machine wants its directives.
    queue, account, walltime : str or None
        As the queue knows them; left out when None.
    prologue, launcher : sequence of str
        Shell lines before the command, and words in front of it.
    time_min : str or None
        Walltime down to which Slurm may shorten the job.
    name : str
        What the job is called, after ``hpc-sweep-``.
    array : int
        How many such jobs there are.
    check : sequence of str
        A Python with a program that must succeed on the node before the command is run; none
        where empty.
    """

    command: Sequence[str]
    log_folder: str
    size: Size
    changes: Changes = field(default_factory=Changes)
    queue: str | None = None
    account: str | None = None
    walltime: str | None = None
    prologue: Sequence[str] = ()
    launcher: Sequence[str] = ()
    time_min: str | None = None
    name: str = "driver"
    array: int = 1
    check: Sequence[str] = ()


def driver_job(cluster: ClusterSpec, command: Sequence[str], log_folder: str) -> DriverJob:
    """Return the job that a spec's cluster gives to the driver."""
    driver = cluster.driver
    return DriverJob(
        command=command,
        log_folder=log_folder,
        size=Size(1, int(driver.memory), scratch_bytes=scratch_bytes(cluster)),
        changes=driver_changes(cluster),
        queue=driver.queue or cluster.queue,
        account=driver.account or cluster.account,
        walltime=driver.walltime or cluster.walltime,
        prologue=cluster.prologue,
        launcher=cluster.launcher,
    )


def with_workers(
    job: DriverJob, cluster: ClusterSpec, nodes: int, cores: int, workers_bytes: int
) -> DriverJob:
    """Return a driver's job with workers beside it on each of its nodes.

    Parameters
    ----------
    job : DriverJob
        The driver alone.
    cluster : ClusterSpec
        How the machine wants its directives.
    nodes, cores : int
        Nodes, and cores on each.
    workers_bytes : int
        Memory of the workers of one node.
    """
    memory_bytes = job.size.memory_bytes + workers_bytes
    size = replace(job.size, nodes=nodes, cores=cores, memory_bytes=memory_bytes)
    return replace(job, name="sweep", size=size, changes=shared_changes(cluster))


def driver_script(kind: str, job: DriverJob, templates: Traversable = TEMPLATES) -> str:
    """Return the script of a driver job.

    Parameters
    ----------
    kind : str
        ``slurm`` or ``pbs``.
    job : DriverJob
        What it is made of.
    templates : Traversable
        Folder of the templates.

    Raises
    ------
    SpecError
        When a value could not stand in a directive as it is, or the template is wrong.
    """
    from jinja2 import Environment, StrictUndefined, TemplateError

    words = {
        "cluster.driver.queue": (job.queue, WORD),
        "cluster.driver.account": (job.account, WORD),
        "cluster.driver.walltime": (job.walltime, CLOCK),
        "cluster.time_min": (job.time_min, CLOCK),
        "output.store": (job.log_folder, WORD),
    }
    faults = [
        Fault(path, f"{word!r} cannot go into a job script; letters, digits and ._:+@=,-/ can")
        for path, (word, allowed) in words.items()
        if word is not None and not allowed.fullmatch(word)
    ]
    faults += [
        Fault("cluster.prologue", f"{line!r} is not one line")
        for line in job.prologue
        if len(line.splitlines()) != 1
    ]
    if faults:
        raise SpecError(faults)
    place = templates / f"driver-{kind}.sh.j2"
    environment = Environment(  # noqa: S701, shell is no HTML
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, undefined=StrictUndefined
    )
    sizes = job.size.values()
    launcher = [placeholders.expanded(word, sizes) for word in job.launcher]
    values = {
        **asdict(job),
        "command": shlex.join([*launcher, *job.command]),
        "check": shlex.join([*launcher, *job.check]) if job.check else "",
        "python": shlex.quote(shlex.join([*launcher, *job.check[:1]])),
    }
    try:
        text = environment.from_string(place.read_text(encoding="utf-8")).render(values)
    except (OSError, TemplateError) as error:
        message = f"cannot be filled in: {error}; fields are {', '.join(values)}"
        raise SpecError([Fault(place.name, message)], f"the template {place}") from None
    shebang, *lines = text.split("\n")
    header = list(itertools.takewhile(lambda line: line.startswith(PREFIX[kind]), lines))
    directives = rewritten(kind, header, job.changes, job.size)
    return "\n".join([shebang, *directives, *lines[len(header) :]])
