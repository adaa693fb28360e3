"""Jobs of dask-jobqueue whose submission leaves a record.

dask-jobqueue loses the words of a rejected submission in a log line about an exception that
nobody retrieved, and waits for ever.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

from dask_jobqueue.pbs import PBSJob
from dask_jobqueue.slurm import SLURMJob
from distributed.core import Status

from hpc_sweep.clusters.base import Record
from hpc_sweep.clusters.queue import is_temporary
from hpc_sweep.directives import Changes, Size, rewritten


class Recording:
    """Mixed into a job class: notes its job id, or why it was refused.

    Its header is rewritten as the machine wants it; dask-jobqueue's own way of skipping
    directives goes by parts of their text, so that ``-A`` in a path loses the log.
    """

    job_id: Any
    status: Any
    config_name: Any
    job_header: str
    worker_cores: int
    worker_memory: int

    def __init__(
        self,
        *args: Any,
        record: Record,
        changes: Changes,
        scratch_bytes: int,
        worker_memory_bytes: int,
        **options: Any,
    ) -> None:
        self._record = record
        self._worker_memory_bytes = worker_memory_bytes
        super().__init__(*args, **{**options, "job_directives_skip": []})
        size = Size(self.worker_cores, self.worker_memory, scratch_bytes=scratch_bytes)
        lines = rewritten(type(self).config_name, self.job_header.split("\n"), changes, size)
        self.job_header = "\n".join(lines)

    @property
    def worker_process_memory(self) -> str:
        """Return the memory of a worker, for its command line."""
        return str(self._worker_memory_bytes)

    async def start(self) -> None:
        """Submit the job; a refusal is recorded instead of raised into the event loop."""
        try:
            await super().start()  # type: ignore[misc]
        except (RuntimeError, ValueError, OSError) as error:
            words = queue_words(str(error))
            wait = is_temporary(words)
            (self._record.delays if wait else self._record.rejections).append(words)
            self._record.say("job_delayed" if wait else "job_rejected", words=words)
            self.status = Status.running  # so that the cluster closes in order
        else:
            self._record.job_ids.append(self.job_id)
            if self._record.nodes is None:
                facts = {"kind": self.config_name, "queue": self._record.queue}
                self._record.say("job_submitted", job=self.job_id, **facts)
            else:
                self._record.say("worker_started", worker=self.job_id)

    async def _submit_job(self, script_filename: str) -> Any:
        if self._record.nodes is None:
            return await super()._submit_job(script_filename)  # type: ignore[misc]
        return self._record.nodes.submit(Path(script_filename))

    def _job_id_from_submit_output(self, out: str) -> Any:
        if self._record.nodes is None:
            return super()._job_id_from_submit_output(out)  # type: ignore[misc]
        return out

    async def close(self) -> None:
        """Cancel the job."""
        if self._record.nodes is None:
            await super().close()  # type: ignore[misc]
        elif self.job_id:
            await asyncio.to_thread(self._record.nodes.cancel, [self.job_id])


class RecordingSlurmJob(Recording, SLURMJob):  # type: ignore[misc]
    """`dask_jobqueue.slurm.SLURMJob` with a record."""


class RecordingPbsJob(Recording, PBSJob):  # type: ignore[misc]
    """`dask_jobqueue.pbs.PBSJob` with a record; its id is the whole ``123.server``."""

    job_id_regexp = r"(?P<job_id>\S+)"

    def __init__(self, *args: Any, **options: Any) -> None:
        # what is asked for comes with the changes, which replace this
        super().__init__(*args, **{**options, "resource_spec": "select=1"})


def queue_words(error: str) -> str:
    """Return what the queue said, out of dask-jobqueue's error text: stderr, else stdout."""
    found = re.search(r"stdout:\n(?P<out>.*?)\nstderr:\n(?P<err>.*)", error, re.DOTALL)
    text = (found["err"].strip() or found["out"]) if found else error
    return "; ".join(line.strip() for line in text.splitlines() if line.strip())
