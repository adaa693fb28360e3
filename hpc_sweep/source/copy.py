"""A copy of some variables in another layout, written slab by slab; any stop leaves it usable."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from hpc_sweep.errors import StoreError, disk_errors
from hpc_sweep.source.reading import Reading
from hpc_sweep.source.streams import Stream
from hpc_sweep.source.tiling import Slab, Tiling

RUNS = 2
"""What a slab has of a tile is read as about so many chunks, since tiles don't end with one."""

LEAST_CHUNK = 32768
"""Values of a chunk at the least, where a slab has as many: each takes zarr a third of a ms."""


@dataclass(frozen=True)
class Copy:
    """A copy in a folder of its own, perhaps not begun.

    Each slab of a variable is one file (a zarr shard), which is there whole or not at all: so the
    folder tells what is done.

    Attributes
    ----------
    folder : Path
        Where.
    tiling : Tiling
        What it has.
    identity : str
        Of the source.
    """

    folder: Path
    tiling: Tiling
    identity: str

    @property
    def is_whole(self) -> bool:
        """Whether all slabs are there."""
        return self._mark.exists()

    @property
    def _mark(self) -> Path:
        return _mark_of(self.folder)

    def begin(self, streams: Mapping[str, Stream]) -> None:
        """Make the folder, unless it is there for the same data and tiling.

        Raises
        ------
        DiskError
            When the disk refuses.
        """
        with disk_errors(self.folder):
            if find_copy(self.folder) == self:
                return
            self.remove()
            temporary = self.folder.with_name(f".{self.folder.name}.{os.getpid()}.tmp")
            shutil.rmtree(temporary, ignore_errors=True)
            attributes = {"tiling": self._description()}
            group = zarr.create_group(temporary, zarr_format=3, attributes=attributes)
            for name, stream in streams.items():
                _create(group, name, stream)
            temporary.rename(self.folder)

    def open_slabs(self) -> Iterator[tuple[int, Slab]]:
        """Yield the slabs that are not there, with their numbers."""
        with disk_errors(self.folder, "read"):
            for number, slab in enumerate(self.tiling.slabs()):
                if not all(self.file(name, slab.row).exists() for name in slab.names):
                    yield number, slab

    def write(self, slab: Slab, streams: Mapping[str, Stream], reading: Reading) -> None:
        """Copy a slab; its chunks of the source are read once, or not if nothing there is wanted.

        Parameters
        ----------
        slab : Slab
            Which one.
        streams : mapping of str to Stream
            The order of the copy.
        reading : Reading
            Reads the data as it lies in its files.

        Raises
        ------
        DiskError
            When the disk refuses.
        """
        some = streams[slab.names[0]]
        number = some.slab(slab.row)
        empty = some.is_empty(number)
        found = {} if empty else reading.read(slab.names, slab.box)
        for name in slab.names:
            with disk_errors(self.folder), zarr.config.set({"array.write_empty_chunks": True}):
                array = self.array(name, "r+")
            values = np.zeros(array.shape[1], dtype=array.dtype)
            if not empty:
                variable, stream = found.pop(name), streams[name]
                dims = list(map(str, variable.dims))
                into = values.view(stream.dtype)
                stream.write(number, variable.values, dims, slab.box, into)
                del variable  # what is written is another copy of it
            with disk_errors(self.folder):
                array[slab.row] = values
                with self.file(name, slab.row).open("rb") as file:
                    os.fsync(file.fileno())

    def end(self) -> None:
        """Note that all slabs are there.

        Raises
        ------
        StoreError
            When they are not.
        """
        missing = next(self.open_slabs(), None)
        if missing is not None:
            where = f"{missing[1]} is missing in {self.folder}"
            raise StoreError(f"{where}; run the same command again")
        with disk_errors(self.folder):
            self._mark.touch()

    def remove(self) -> None:
        """Delete it, from its mark on."""
        with disk_errors(self.folder):
            self._mark.unlink(missing_ok=True)
            if self.folder.exists():
                shutil.rmtree(self.folder)

    def array(self, name: str, mode: Any = "r") -> zarr.Array[Any]:
        """Open what it has of a variable, shape (n_slabs, n_values)."""
        return zarr.open_array(self.folder / name, mode=mode)

    def file(self, name: str, row: int) -> Path:
        """Return the file of a variable's slab."""
        return self.folder / name / f"c.{row}.0"

    def _description(self) -> str:
        return json.dumps({"identity": self.identity, **asdict(self.tiling)}, sort_keys=True)


def has_whole_copy(folder: Path) -> bool:
    """Return whether a folder has a copy with all slabs."""
    return _mark_of(folder).exists()


def _mark_of(folder: Path) -> Path:
    return folder.with_name(folder.name + ".whole")


def find_copy(folder: Path) -> Copy | None:
    """Return the copy in a folder, or None."""
    try:
        attributes = json.loads((folder / "zarr.json").read_text())["attributes"]
        described = json.loads(attributes["tiling"])
        return Copy(folder, identity=described["identity"], tiling=Tiling.described(described))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _create(group: zarr.Group, name: str, stream: Stream) -> None:
    """Create what a copy has of a variable; each shard is a slab."""
    tiles = math.prod(-(-int(np.count_nonzero(each)) // len(each)) for each in stream.counts)
    chunk = max(1, min(stream.longest, max(LEAST_CHUNK, stream.longest // (max(1, tiles) * RUNS))))
    longest = -(-max(1, stream.longest) // chunk) * chunk
    dtype = np.dtype("int64") if stream.dtype.kind in "mM" else stream.dtype
    rows = math.prod(stream.n_slabs)
    group.create_array(
        name,
        shape=(rows, longest),
        chunks=(1, chunk),
        shards=(1, longest),
        dtype=dtype,
        fill_value=np.zeros((), dtype)[()],
        compressors=[ZstdCodec(level=1), Crc32cCodec()],
        chunk_key_encoding={"name": "default", "separator": "."},
    )
