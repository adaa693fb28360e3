"""What a search that is not finished has been answered: lines that outlive the driver.

One file a partition lies beside the parts, each line a checksum and a JSON object. A line that
a kill cut short, or that is damaged, is as if it had never been.
"""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from collections.abc import Iterator
from typing import Any

from hpc_sweep.errors import disk_errors
from hpc_sweep.plan import Unit
from hpc_sweep.store.journal import gap
from hpc_sweep.store.runfolder import RunFolder

SUFFIX = ".answers"


class Answers:
    """The answers of one partition's search.

    Parameters
    ----------
    run : RunFolder
        Of the driver.
    store_id : str
        Of the store; what another store left is not read.
    unit : Unit
        The partition.
    """

    def __init__(self, run: RunFolder, store_id: str, unit: Unit) -> None:
        self.path = run.parts / f"{store_id}_{unit.key}{SUFFIX}"

    def read(self) -> Iterator[dict[str, Any]]:
        """Yield the answers that are whole.

        Raises
        ------
        DiskError
            When the disk refuses.
        """
        with disk_errors(self.path, "read"), contextlib.suppress(FileNotFoundError):
            for line in self.path.read_bytes().splitlines():
                checksum, _, content = line.partition(b" ")
                if checksum == _checksum(content):
                    yield json.loads(content)

    def add(self, answer: dict[str, Any]) -> None:
        """Append an answer durably; numbers keep every bit.

        Raises
        ------
        DiskError
            When the disk refuses.
        """
        content = json.dumps(answer).encode()
        with disk_errors(self.path), self.path.open("ab+") as file:
            file.write(gap(file) + _checksum(content) + b" " + content + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def remove(self) -> None:
        """Delete them, once the part of their partition is written."""
        with disk_errors(self.path):
            self.path.unlink(missing_ok=True)


def _checksum(content: bytes) -> bytes:
    return b"%08x" % zlib.crc32(content)


def remove_answers(run: RunFolder) -> None:
    """Delete all: what was answered is done, or is to be done again."""
    with disk_errors(run.parts):
        for path in run.parts.glob(f"*{SUFFIX}"):
            path.unlink(missing_ok=True)


def count_answers(run: RunFolder) -> int:
    """Return how many lines of answers there are."""
    count = 0
    for path in run.parts.glob(f"*{SUFFIX}"):
        with contextlib.suppress(FileNotFoundError), disk_errors(path, "read"):
            count += path.read_bytes().count(b"\n")
    return count
