"""A file of models: those of one result chunk, one after the other, behind them an index.

Bytes only: what they mean is not looked at here. The layout::

    models … | index: 5 int64 a partition | header: JSON | trailer

Integers are little-endian. A row of the index has offset, size and CRC-32 of a model, the row of
its candidate along the strategy's dimension, and which of the header's ``versions`` it was made
with. A model of size 0 could not be made; −1 as its candidate: there is none. The trailer has
sizes and CRC-32 of index and header, and ends with the format's name. So nothing that a file
says is used to reach outside of it, or to take memory, before it was compared with its size.
"""

from __future__ import annotations

import json
import os
import stat
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from hpc_sweep.errors import StoreError, disk_errors
from hpc_sweep.store.durable import durably

MAGIC = b"hpc_sweep models 1\n"
_TRAILER = struct.Struct(f"<qqI{len(MAGIC)}s")
OFFSET, SIZE, CRC, INDEX, VERSION = range(5)
MOST_HEADER_BYTES = 1_000_000

Content = Callable[[], Sequence[bytes]]
"""Brings the models of some partitions into memory."""


@dataclass(frozen=True)
class Kept:
    """Models of some partitions, in memory or to be had.

    Attributes
    ----------
    rows : ndarray of intp, shape (n,)
        Which partitions, by their position in the result chunk.
    picked : ndarray of intp, shape (n,)
        Where each is among the models that `content` brings.
    index : ndarray of int64, shape (n,)
        The row of the candidate of each.
    versions : sequence of mapping
        Of libraries that each was made with.
    content : callable
        Brings them into memory; called once, while they are written.
    """

    rows: NDArray[np.intp]
    picked: NDArray[np.intp]
    index: NDArray[np.int64]
    versions: Sequence[Mapping[str, str]]
    content: Content


def write_models(
    path: Path, about: Mapping[str, Any], n_partitions: int, kept: Sequence[Kept]
) -> None:
    """Write the models of a result chunk durably.

    Parameters
    ----------
    path : Path
        Where.
    about : mapping
        JSON for the header.
    n_partitions : int
        How many the result chunk has.
    kept : sequence of Kept
        The models; no more than one set of them is in memory at a time.
    """
    index = np.zeros((n_partitions, 5), dtype="<i8")
    index[:, INDEX] = -1
    versions: list[Mapping[str, str]] = []
    offset = 0
    with durably(path) as file:
        for some in kept:
            models = some.content()
            for row, picked, candidate, made_with in zip(
                some.rows, some.picked, some.index, some.versions, strict=True
            ):
                model = models[picked]
                if made_with not in versions:
                    versions.append(made_with)
                version = versions.index(made_with)
                index[row] = offset, len(model), zlib.crc32(model), candidate, version
                file.write(model)
                offset += len(model)
        header = json.dumps({**about, "versions": versions}).encode()
        end = index.tobytes() + header
        file.write(end)
        file.write(_TRAILER.pack(index.nbytes, len(header), zlib.crc32(end), MAGIC))


class ModelFile:
    """A file of models, opened; its index is known to be whole.

    Parameters
    ----------
    path : Path
        Where.
    n_partitions : int
        How many the result chunk has.
    remedy : str
        What messages tell to do where it is damaged.

    Attributes
    ----------
    doubt : str
        Why what `read` has read last may have been written by another user than this one; ``""``
        where nobody else can.

    Raises
    ------
    StoreError
        When it is missing, short, damaged, or something else.
    """

    def __init__(self, path: Path, n_partitions: int, remedy: str) -> None:
        self.path = path
        self.doubt = "it was not read"
        self._remedy = remedy
        try:
            with disk_errors(path, "read"), path.open("rb") as file:
                self.index, self.header = self._read_end(file, n_partitions)
        except FileNotFoundError:
            raise StoreError(f"{path} is missing, which has models; {remedy}") from None

    def _read_end(
        self, file: IO[bytes], n_partitions: int
    ) -> tuple[NDArray[np.int64], dict[str, Any]]:
        size = file.seek(0, os.SEEK_END)
        if size < _TRAILER.size:
            raise self._damaged(f"it has {size} bytes")
        file.seek(size - _TRAILER.size)
        index_bytes, header_bytes, crc, magic = _TRAILER.unpack(file.read(_TRAILER.size))
        if magic != MAGIC:
            raise self._damaged("it does not end as a file of models does")
        models_bytes = size - _TRAILER.size - index_bytes - header_bytes
        known = index_bytes == n_partitions * 5 * 8 and 0 < header_bytes <= MOST_HEADER_BYTES
        if not known or models_bytes < 0:
            raise self._damaged(f"its index is not that of {n_partitions} partitions")
        file.seek(models_bytes)
        end = file.read(index_bytes + header_bytes)
        if zlib.crc32(end) != crc:
            raise self._damaged("the checksum of its index is another")
        index = np.frombuffer(end[:index_bytes], dtype="<i8").reshape(-1, 5)
        try:
            header: dict[str, Any] = json.loads(end[index_bytes:])
            n_versions = len(header["versions"])
        except (ValueError, KeyError, TypeError):
            raise self._damaged("its header is none") from None
        there = index[index[:, SIZE] != 0]
        inside = (there[:, OFFSET] >= 0) & (there[:, SIZE] > 0)
        inside &= there[:, OFFSET] <= models_bytes - there[:, SIZE]
        inside &= (there[:, VERSION] >= 0) & (there[:, VERSION] < n_versions)
        if not inside.all():
            raise self._damaged("its index points outside of it")
        return index.astype(np.int64), header

    def candidates(self) -> NDArray[np.int64]:
        """Return the row of each partition's candidate; −1: it has no model."""
        return self.index[:, INDEX]

    def is_empty(self, position: int) -> bool:
        """Return whether a partition's model could not be made."""
        return bool(self.index[position, SIZE] == 0)

    def versions(self, position: int) -> Mapping[str, str]:
        """Return the versions of libraries that a partition's model was made with."""
        found: Mapping[str, str] = self.header["versions"][self.index[position, VERSION]]
        return found

    def read(self, positions: Sequence[int]) -> list[bytes]:
        """Return the models of some partitions, in one visit to the disk.

        Raises
        ------
        StoreError
            When one is damaged.
        """
        found = []
        with disk_errors(self.path, "read"), self.path.open("rb") as file:
            self.doubt = _doubt(os.fstat(file.fileno()))
            for position in positions:
                model = self._read(file, position)
                if model is None:
                    raise self._damaged(f"the checksum of model {position} is another")
                found.append(model)
        return found

    def _read(self, file: IO[bytes], position: int) -> bytes | None:
        """Return a model, or None where it is damaged."""
        offset, size, crc = self.index[position, [OFFSET, SIZE, CRC]].tolist()
        file.seek(offset)
        model = file.read(size)
        return model if len(model) == size and zlib.crc32(model) == crc else None

    def damaged(self) -> list[int]:
        """Return the positions of models whose checksum is another."""
        there = np.flatnonzero(self.index[:, SIZE]).tolist()
        with disk_errors(self.path, "read"), self.path.open("rb") as file:
            return [position for position in there if self._read(file, position) is None]

    def _damaged(self, why: str) -> StoreError:
        return StoreError(f"{self.path} is damaged: {why}; {self._remedy}")


def _doubt(state: os.stat_result) -> str:
    if state.st_uid != os.geteuid():
        return "the file belongs to somebody else"
    if state.st_mode & 0o022:
        return f"others may write the file (mode {stat.S_IMODE(state.st_mode):04o})"
    return ""
