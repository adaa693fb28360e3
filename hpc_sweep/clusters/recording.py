"""A dask-jobqueue job whose submission leaves a record.

dask-jobqueue loses the words of a rejected sbatch in a log line about an exception that
nobody retrieved, and waits for ever.
"""

from __future__ import annotations

import re
from typing import Any

from dask_jobqueue.slurm import SLURMJob
from distributed.core import Status

from hpc_sweep.clusters.base import Record


class RecordingSlurmJob(SLURMJob):  # type: ignore[misc]
    """`dask_jobqueue.slurm.SLURMJob` that notes its job id, or why it was refused."""

    def __init__(self, *args: Any, record: Record, **options: Any) -> None:
        self._record = record
        super().__init__(*args, **options)

    async def start(self) -> None:
        """Submit the job; a refusal is recorded instead of raised into the event loop."""
        try:
            await super().start()
        except (RuntimeError, ValueError, OSError) as error:
            words = queue_words(str(error))
            self._record.rejections.append(words)
            self._record.say("job_rejected", words=words)
            self.status = Status.running  # so that the cluster closes in order
        else:
            self._record.job_ids.append(self.job_id)
            self._record.say("job_submitted", job=self.job_id)


def queue_words(error: str) -> str:
    """Return what the queue wrote to stderr, out of dask-jobqueue's error text."""
    match = re.search(r"stderr:\n(.*)", error, re.DOTALL)
    text = match.group(1) if match else error
    return "; ".join(line.strip() for line in text.splitlines() if line.strip())
