"""The commands of a queue: submit a script, ask about jobs, cancel them."""

from __future__ import annotations

import abc
import math
import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hpc_sweep.errors import ClusterError

QUERY_S = 30
"""How long one question to the queue may take."""

QUICK_S = 60.0
"""What ends within this time of its start never worked."""

ENDING = frozenset({"COMPLETING", "EXITING"})
"""States in which a job cannot be cancelled any more."""


SILENT = (
    "Unable to contact slurm controller",
    "Socket timed out",
    "cannot connect to server",
    "Connection refused",
    "Connection timed out",
)
"""Words of Slurm and PBS when whoever decides does not answer."""

TEMPORARY = (
    *SILENT,
    "Slurm temporarily unable to accept job",
    "Resource temporarily unavailable",
    "AssocMaxSubmitJobLimit",
    "QOSMaxSubmitJobPerUserLimit",
    "job submit limit",
    "would exceed",
)
"""Words of Slurm and PBS that ask to wait: all else is a rejection."""


class QueueSilentError(RuntimeError):
    """The queue did not answer; the text says why."""


class NotNowError(ClusterError):
    """The queue does not answer or takes no job at present; the same may be asked later."""


@dataclass(frozen=True)
class JobState:
    """What the queue says of a job.

    Attributes
    ----------
    job : str
        Its id.
    state, reason : str
        In the queue's words.
    ended : bool
        Whether it will never run again.
    ran_s, left_s : float or None
        How long it has run, and may still run, where the queue tells.
    """

    job: str
    state: str
    reason: str
    ended: bool
    ran_s: float | None = None
    left_s: float | None = None

    def __str__(self) -> str:
        return self.state if self.reason in ("", "None") else f"{self.state} ({self.reason})"


class Queue(abc.ABC):
    """One kind of queue, by its commands.

    Attributes
    ----------
    kind : str
        ``slurm`` or ``pbs``.
    submit_command : str
        Command that must be there.
    job_variable, index_variable : str
        Environment variables that hold the id of the job that a process is in, and its index in
        an array of jobs.
    submit_host_variable : str
        The one with the host that the job was submitted from.
    joined_log : sequence of str
        Directives by which errors go into the log of the output, once ``-e`` is left out.
    """

    kind: str
    submit_command: str
    job_variable: str
    index_variable: str
    submit_host_variable: str
    joined_log: Sequence[str] = ()

    @abc.abstractmethod
    def nodes(self) -> list[str]:
        """Return the names of the nodes of the job that this process is in, its own one first."""

    @abc.abstractmethod
    def launcher(self, node: str, cpus: int) -> list[str]:
        """Return the command that runs another one on a node of this process's job.

        Parameters
        ----------
        node : str
            One of `nodes`.
        cpus : int
            Cores that it shall have.
        """

    def current_job(self) -> str:
        """Return the id of the job that this process is in, or ``""``."""
        return os.environ.get(self.job_variable, "")

    def name(self) -> str:
        """Return what tells this queue's job ids from another one's, such as ``slurm:CLUSTER``.

        Raises
        ------
        QueueSilentError
            When the queue does not answer.
        """
        return self.kind

    def known_name(self) -> str:
        """Return `name`, or the kind alone while the queue does not answer."""
        try:
            return self.name()
        except QueueSilentError:
            return self.kind

    def job_end(self, walltime_s: float) -> str:
        """Return shell text that prints when its job ends, in seconds since 1970.

        Parameters
        ----------
        walltime_s : float
            What the job asked for.
        """
        return f"$(($(date +%s) + {walltime_s:.0f}))"

    def time_min(self, walltime_s: float | None, least: str | None) -> str | None:
        """Return down to what the queue may shorten a job to start it earlier, if it may.

        Parameters
        ----------
        walltime_s : float or None
            What the job asks for.
        least : str or None
            What the spec says.
        """
        return None

    @abc.abstractmethod
    def submit(
        self, script: Path, after: str | None = None, walltime_s: float | None = None
    ) -> str:
        """Submit a script and return the job's id.

        Parameters
        ----------
        script : Path
            The script.
        after : str, optional
            Id of a job; it starts when that has ended, however it did.
        walltime_s : float, optional
            In place of the script's.

        Raises
        ------
        ClusterError
            With the queue's own words when it refuses.
        """

    @abc.abstractmethod
    def cancel(self, jobs: Sequence[str]) -> None:
        """Cancel jobs; those that ended already are passed over.

        Raises
        ------
        QueueSilentError
            When the queue does not answer.
        """

    @abc.abstractmethod
    def states(self, jobs: Sequence[str]) -> list[JobState]:
        """Ask the queue once about jobs; those that it does not know any more are left out.

        Raises
        ------
        QueueSilentError
            When the queue does not answer.
        """


def ask(command: Sequence[str]) -> str:
    """Run one query of the queue and return what it prints.

    Raises
    ------
    QueueSilentError
        When it fails or does not answer within `QUERY_S`.
    """
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, timeout=QUERY_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise QueueSilentError(f"{command[0]} does not answer: {error}") from None
    if answer.returncode:
        words = (answer.stderr or answer.stdout).partition("\nUsage:")[0].strip()
        raise QueueSilentError(f"{command[0]} failed: {'; '.join(words.splitlines())}")
    return answer.stdout


def submit(command: Sequence[str], folder: Path) -> str:
    """Submit one job and return what the command prints.

    Parameters
    ----------
    command : sequence of str
        ``sbatch`` or ``qsub`` with the script.
    folder : Path
        Where to call it from.

    Raises
    ------
    NotNowError
        With the queue's own words when it does not answer, or only asks to wait.
    ClusterError
        With the queue's own words when it refuses.
    """
    # a job's own limits and ids must not become those of the job that it submits
    kept = {"SLURM_CONF"}
    environment = {k: v for k, v in os.environ.items() if k[:6] != "SLURM_" or k in kept}
    try:
        answer = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=QUERY_S,
            check=False,
            cwd=folder,
            env=environment,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotNowError(f"the queue does not answer: {error}") from None
    if answer.returncode:
        lines = (answer.stderr.strip() or answer.stdout).splitlines()
        words = "; ".join(line.strip() for line in lines if line.strip())
        if _has(words, SILENT):
            raise NotNowError(f"the queue does not answer: {words}")
        if is_temporary(words):
            raise NotNowError(f"the queue takes no job now: {words}")
        raise ClusterError(f"the queue refused the driver's job: {words}")
    return answer.stdout.strip()


def is_temporary(words: str) -> bool:
    """Return whether the queue only asked to wait."""
    return _has(words, TEMPORARY)


def _has(words: str, phrases: Sequence[str]) -> bool:
    return any(phrase.lower() in words.lower() for phrase in phrases)


def log_tail(folder: Path, job: str, index: int | None = None, lines: int = 8) -> str:
    """Return the end of a job's log in a folder of logs, for a message.

    Parameters
    ----------
    folder : Path
        The folder.
    job : str
        Its id.
    index : int, optional
        Of a job in an array.
    lines : int
        How many at the most.
    """
    number = re.match(r"[\w-]*", job.partition(".")[0])
    name = re.escape(number[0] if number else job) + ("" if index is None else rf"[_\[]{index}")
    ours = re.compile(rf"(?<!\d){name}(?!\d)")
    logs = [p for p in folder.glob("*") if ours.search(p.name) and p.suffix != ".sh"]
    logs.sort(key=lambda path: path.stat().st_mtime)
    texts = [(path, path.read_text(errors="replace").strip()) for path in logs]
    written = [(path, text) for path, text in texts if text]
    if not written:
        return f"it wrote no log into {folder}"
    path, text = written[-1]
    end = f"the end of its log {path}:\n" + "\n".join(text.splitlines()[-lines:])
    unreached = _UNREACHED.search(text)
    if unreached is None:
        return end
    return (
        f"{end}\nit could not reach the driver at {unreached[1]}: name the network that the "
        "driver's host and the nodes share in cluster.scheduler_interface and cluster.interface; "
        "hpc-sweep doctor tests it"
    )


_UNREACHED = re.compile(r"Timed out trying to connect to (\S+)")
"""As a worker of Dask says it, in the middle of tracebacks."""


def is_for_maintenance(state: JobState) -> bool:
    """Return whether a job waits because of a maintenance that is announced or under way."""
    reason = state.reason.lower()
    return not state.ended and ("maint" in reason or "dedicated time" in reason)


def with_margin(remaining_s: float) -> float:
    """Return the walltime to ask for work that is predicted to take `remaining_s`."""
    return 60.0 * math.ceil((1.5 * remaining_s + 600) / 60)


def clock(seconds_: float) -> str:
    """Return a walltime as ``HH:MM:SS``: PBS knows no days."""
    minutes, rest = divmod(round(seconds_), 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest:02}"


def seconds(clock: str) -> float | None:
    """Return ``D-HH:MM:SS``, ``HH:MM:SS`` or ``MM:SS`` in seconds; None for anything else."""
    days, _, rest = clock.rpartition("-")
    fields = rest.split(":")
    if len(fields) < 2 or not all(field.isdecimal() for field in [*fields, days or "0"]):
        return None
    total = 0
    for number in fields:
        total = total * 60 + int(number)
    return float(total + int(days or 0) * 86400)
