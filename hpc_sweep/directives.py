"""The header of a job script, rewritten by option: what to skip, replace and add.

One mechanism for the driver's script and for those that dask-jobqueue renders. A directive
is known by its option, in the long form of Slurm (``-p`` is ``--partition``) and by the
resource for PBS (``-l walltime``); never by a part of its text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from hpc_sweep import placeholders
from hpc_sweep.errors import Fault, SpecError
from hpc_sweep.spec import ClusterSpec

PREFIX = {"slurm": "#SBATCH", "pbs": "#PBS"}

ACCOUNT = {"slurm": "--account", "pbs": "-A"}
"""The option of the account, unless the machine has another one."""

RESOURCES = {
    "slurm": (
        "--nodes={nodes}",
        "--ntasks-per-node=1",
        "--cpus-per-task={cores}",
        "--mem={memory_mib}M",
    ),
    "pbs": ("-l select={nodes}:ncpus={cores}:mem={memory_mib}mb",),
}
"""How a job's size is asked for, unless the machine has it otherwise."""

LONG = {
    "A": "account",
    "a": "array",
    "b": "begin",
    "C": "constraint",
    "c": "cpus-per-task",
    "D": "chdir",
    "d": "dependency",
    "e": "error",
    "G": "gpus",
    "H": "hold",
    "i": "input",
    "J": "job-name",
    "L": "licenses",
    "M": "clusters",
    "m": "distribution",
    "N": "nodes",
    "n": "ntasks",
    "o": "output",
    "p": "partition",
    "q": "qos",
    "S": "core-spec",
    "s": "oversubscribe",
    "t": "time",
    "w": "nodelist",
    "x": "exclude",
}
"""Long forms of sbatch(1)'s short options."""

SAME = {
    "--mem-per-cpu": "--mem",
    "--mem-per-gpu": "--mem",
    "--ntasks": "--ntasks-per-node",
    "-l nodes": "-l select",
}
"""Options that exclude each other: the one replaces the other."""

_WORD = re.compile(r"""(?:[^\s"'\\]|\\.|"(?:[^"\\]|\\.)*"|'[^']*')+""")
_LISTED = re.compile(r""",(?=\w+(?:=|,|$))(?=(?:[^"]*"[^"]*")*[^"]*$)""")


@dataclass(frozen=True)
class Size:
    """What a job asks for.

    Attributes
    ----------
    cores, memory_bytes : int
        On each node.
    nodes : int
        Number of nodes.
    scratch_bytes : int
        Local scratch on each node.
    """

    cores: int
    memory_bytes: int
    nodes: int = 1
    scratch_bytes: int = 0

    def values(self) -> dict[str, int]:
        """Return what the placeholders stand for, in whole units, rounded up."""
        memory, scratch = self.memory_bytes, self.scratch_bytes
        found = {
            "nodes": self.nodes,
            "cores": self.cores,
            "all_cores": self.cores * self.nodes,
            "memory_kib": -(-memory // 1024),
            "memory_mib": -(-memory // 1024**2),
            "memory_gib": -(-memory // 1024**3),
            "memory_mb": -(-memory // 1000**2),
            "memory_gb": -(-memory // 1000**3),
            "all_memory_mib": -(-memory * self.nodes // 1024**2),
            "all_memory_gb": -(-memory * self.nodes // 1000**3),
            "scratch_mib": -(-scratch // 1024**2),
            "scratch_gb": -(-scratch // 1000**3),
        }
        return {name: found[name] for name in placeholders.SIZES}


@dataclass(frozen=True)
class Changes:
    """How a machine's headers differ from the usual ones.

    Attributes
    ----------
    resources : sequence of str or None
        In place of the usual directives for cores and memory.
    skip : sequence of str
        Options to drop.
    directives : sequence of str
        Options to add, or to put in place of the same option.
    account_option : str or None
        Option in place of the usual one for the account.
    """

    resources: Sequence[str] | None = None
    skip: Sequence[str] = ()
    directives: Sequence[str] = ()
    account_option: str | None = None


def rewritten(kind: str, lines: Sequence[str], changes: Changes, size: Size) -> list[str]:
    """Return the directives of a script as a machine wants them.

    Parameters
    ----------
    kind : str
        ``slurm`` or ``pbs``.
    lines : sequence of str
        Directives as they are, each after its ``#SBATCH`` or ``#PBS``.
    changes : Changes
        What to do to them.
    size : Size
        What the placeholders stand for.

    Raises
    ------
    SpecError
        When a line is no directive: a value with a line break made it.
    """
    prefix = PREFIX[kind]
    for line in lines:
        if not line.startswith(f"{prefix} ") or not line.isprintable():
            message = f"makes {line!r} in a job script; each must be one {prefix} line"
            raise SpecError([Fault("cluster.options or jobqueue.yaml", message)])
    for text in [*(changes.resources or ()), *changes.directives]:
        if not text.strip() or not text.isprintable():
            message = f"{text!r} is not one line of directives"
            raise SpecError([Fault("cluster.directives or cluster.resources", message)])
    texts = [line.removeprefix(prefix).strip() for line in lines]
    skip = {option_of(kind, option) for option in changes.skip}
    kept = [pair for text in texts for pair in split(kind, text) if pair[0] not in skip]
    if changes.account_option is not None:
        kept = [_with_account(kind, pair, changes.account_option) for pair in kept]
    values = size.values()
    usual = {option for text in RESOURCES[kind] for option, _ in split(kind, text)}
    if changes.resources is not None:
        usual.add("-l place")  # PBS takes it with select only
    resources = RESOURCES[kind] if changes.resources is None else changes.resources
    kept = [pair for pair in kept if pair[0] not in usual]
    kept += [pair for pair in _expanded(kind, resources, values) if pair[0] not in skip]
    added = list(_expanded(kind, changes.directives, values))
    replaced = {option for option, _ in added}
    kept = [pair for pair in kept if pair[0] not in replaced]
    return [f"{prefix} {text}" for _, text in [*kept, *added]]


def split(kind: str, text: str) -> Iterator[tuple[str, str]]:
    """Yield each option in the text of a directive, and its own text."""
    words = _WORD.findall(text)
    if _WORD.sub("", text).strip():  # a quote that does not end
        words = [text]
    starts = [index for index, word in enumerate(words) if word.startswith("-") or not index]
    for start, stop in zip(starts, [*starts[1:], len(words)], strict=True):
        yield from _listed(kind, " ".join(words[start:stop]))


def _listed(kind: str, text: str) -> Iterator[tuple[str, str]]:
    """Yield one option, or each resource of a list of them."""
    if kind == "pbs" and text[:2] in ("-l", "-W"):
        for item in _LISTED.split(text[2:].strip()):
            yield option_of(kind, f"{text[:2]} {item}"), f"{text[:2]} {item}"
    else:
        yield option_of(kind, text), text


def option_of(kind: str, text: str) -> str:
    """Return the option of a directive, in the form that all its spellings share."""
    if kind == "pbs" and not text.startswith("-"):
        text = f"-l {text}"
    elif kind == "slurm" and not text.startswith("-"):
        text = f"--{text}"
    if text.startswith("--"):
        option = re.split(r"[=\s]", text)[0]
    elif kind == "slurm":
        option = f"--{LONG[text[1]]}" if text[1:2] in LONG else text[:2]
    elif text[:2] in ("-l", "-W"):
        option = f"{text[:2]} {text[2:].strip().partition('=')[0]}"
    else:
        option = text[:2]
    return SAME.get(option, option)


def _expanded(kind: str, texts: Sequence[str], values: dict[str, int]) -> Iterator[tuple[str, str]]:
    for text in texts:
        yield from split(kind, placeholders.expanded(text, values))


def _with_account(kind: str, pair: tuple[str, str], option: str) -> tuple[str, str]:
    """Return the account's directive with another option; others as they are."""
    if pair[0] != ACCOUNT[kind]:
        return pair
    account = re.sub(r"^(--\w+[=\s]|-\w)\s*", "", pair[1])
    joint = "=" if option.startswith("--") or " " in option else " "
    return option_of(kind, option), f"{option}{joint}{account}"


def worker_changes(cluster: ClusterSpec) -> Changes:
    """Return what a cluster section changes in the scripts of worker jobs."""
    return Changes(cluster.resources, cluster.skip, cluster.directives, cluster.account_option)


def driver_changes(cluster: ClusterSpec) -> Changes:
    """Return what it changes in the script of a driver's job."""
    driver = cluster.driver
    resources = cluster.resources if driver.resources is None else driver.resources
    return Changes(resources, cluster.skip, driver.directives, cluster.account_option)


def shared_changes(cluster: ClusterSpec) -> Changes:
    """Return what it changes where the driver's job has its workers in it."""
    workers = worker_changes(cluster)
    return replace(workers, directives=[*workers.directives, *cluster.driver.directives])


def scratch_bytes(cluster: ClusterSpec) -> int:
    """Return the local scratch that its jobs ask for, 0 where nothing is said."""
    return int((cluster.scratch and cluster.scratch.size) or 0)
