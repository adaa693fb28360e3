"""The nodes of one allocation: workers are started on them as children of the driver.

This stands in for the queue where driver and workers share a job. Scripts of worker jobs are
the same; what starts them is the queue's own launcher in place of ``sbatch`` or ``qsub``.
"""

from __future__ import annotations

import math
import os
import re
import shlex
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hpc_sweep.clusters.queue import QUICK_S, JobState, Queue, log_tail
from hpc_sweep.errors import ClusterError

MAX_QUICK_ENDS = 2
"""So many ends within `QUICK_S` of their start, and a node is given up."""

END_S = 20.0
"""How long children may take to end before they are killed."""


@dataclass
class Child:
    """A script at work on a node."""

    node: str
    process: subprocess.Popen[bytes]
    started: float
    ended: bool = False


class Nodes(Queue):
    """Starts scripts on the nodes of the job that this process is in.

    Parameters
    ----------
    queue : Queue
        Whose job it is.
    folder : Path
        The run folder; scripts and logs go there.
    cpus : int
        Cores of each script.

    Raises
    ------
    ClusterError
        When this process is in no job of that queue.
    """

    def __init__(self, queue: Queue, folder: Path, cpus: int) -> None:
        self.kind = queue.kind
        self.submit_command = queue.submit_command
        self.job_variable = queue.job_variable
        self.index_variable = queue.index_variable
        self._queue = queue
        self._folder = folder
        self._cpus = cpus
        self._children: dict[str, Child] = {}
        self._quick_ends: Counter[str] = Counter()
        self._lock = threading.Lock()
        if not queue.current_job():
            raise ClusterError(
                "cluster.place one_job runs inside a job, and this is none; use hpc-sweep submit"
            )
        self._nodes = queue.nodes()

    def nodes(self) -> list[str]:
        """Return the nodes that are not given up."""
        return [node for node in self._nodes if self._quick_ends[node] < MAX_QUICK_ENDS]

    def launcher(self, node: str, cpus: int) -> list[str]:
        """Return the queue's own."""
        return self._queue.launcher(node, cpus)

    def job_end(self, walltime_s: float) -> str:
        """Return nothing: the driver ends before the job that it shares with its workers."""
        return ""

    def submit(
        self, script: Path, after: str | None = None, walltime_s: float | None = None
    ) -> str:
        """Start a copy of a script on a node that has none at work; return a name for it."""
        node = self._free_node()
        name = f"worker-{re.sub(r'[^A-Za-z0-9-]', '-', node)}-{len(self._children) + 1}"
        copy = self._folder / "logs" / f"{name}.sh"
        log = self._folder / "logs" / f"{name}.log"
        head, _, body = script.read_text().partition("\n")
        # launchers differ in where they leave what is printed
        copy.write_text(f"{head}\nexec >>{shlex.quote(str(log))} 2>&1\n{body}")
        copy.chmod(0o700)
        with log.open("ab") as output:
            process = subprocess.Popen(
                [*self.launcher(node, self._cpus), "/bin/bash", str(copy)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=launch_environment(),
                start_new_session=True,  # Ctrl-C is the driver's
            )
        self._children[name] = Child(node, process, time.monotonic())
        return name

    def _free_node(self) -> str:
        """Return the free node with the fewest quick ends; among these the longest unused."""
        busy: set[str] = set()
        last: dict[str, float] = {}
        for child in self._children.values():
            last[child.node] = child.started
            if self._code(child) is None:
                busy.add(child.node)
        free = [node for node in self._nodes if node not in busy]
        return min(free, key=lambda node: (self._quick_ends[node], last.get(node, -math.inf)))

    def _code(self, child: Child) -> int | None:
        """Return the exit code of a script, or None while it runs; count its end once."""
        with self._lock:  # dask-jobqueue submits in another thread than the driver asks in
            code = child.process.poll()
            if code is not None and not child.ended:
                child.ended = True
                self._quick_ends[child.node] += time.monotonic() - child.started < QUICK_S
        return code

    def cancel(self, jobs: Sequence[str]) -> None:
        """End scripts that are at work."""
        children = [self._children[job].process for job in jobs if job in self._children]
        for process in children:
            if process.poll() is None:
                process.terminate()
        end = time.monotonic() + END_S
        for process in children:
            try:
                process.wait(max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def states(self, jobs: Sequence[str]) -> list[JobState]:
        """Return which scripts are at work.

        Raises
        ------
        ClusterError
            When scripts end as soon as they start, on every node.
        """
        found = []
        for job in jobs:
            child = self._children[job]
            code = self._code(child)
            if code is None:
                found.append(JobState(job, "RUNNING", f"on {child.node}", ended=False))
                continue
            found.append(JobState(job, "ENDED", f"on {child.node}, exit code {code}", ended=True))
        if not self.nodes():
            raise ClusterError(
                f"workers ended within {QUICK_S:.0f} s of their start on every node, the last "
                f"one, {found[-1].job}, {found[-1]}; "
                f"{log_tail(self._folder / 'logs', found[-1].job)}"
            )
        return found


def launch_environment() -> dict[str, str]:
    """Return the environment without what a job's own step would take for options."""
    kept = ("SLURM_CONF", "SLURM_JOB_ID", "SLURM_JOBID")
    return {k: v for k, v in os.environ.items() if not k.startswith("SLURM_") or k in kept}
