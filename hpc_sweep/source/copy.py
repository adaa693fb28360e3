"""A rechunked copy of some variables, written slab by slab, which any stop leaves usable."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from hpc_sweep.errors import StoreError, disk_errors
from hpc_sweep.source.tiling import Slab, Tiling


@dataclass(frozen=True)
class Copy:
    """A copy in a folder of its own, perhaps not begun.

    Each slab is one file (a zarr shard), which is there whole or not at all: so the folder tells
    what is done.

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
        return self.folder.with_name(self.folder.name + ".whole")

    def begin(self, dataset: xr.Dataset) -> None:
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
            for name in self.tiling.lengths:
                _create(group, dataset[name], self.tiling)
            temporary.rename(self.folder)

    def open_slabs(self) -> Iterator[Slab]:
        """Yield the slabs that are not there."""
        with disk_errors(self.folder, "read"):
            yield from (slab for slab in self.tiling.slabs() if not self._file(slab).exists())

    def write(self, slab: Slab, dataset: xr.Dataset) -> None:
        """Copy a slab; its chunks of the source are read once.

        Raises
        ------
        DiskError
            When the disk refuses.
        """
        part = {self.tiling.dim: slice(slab.start, slab.stop)}
        values = dataset[slab.variable].isel(part).values
        place = dataset[slab.variable].get_axis_num(self.tiling.dim)
        where = (*(slice(None) for _ in range(int(place))), slice(slab.start, slab.stop))
        with disk_errors(self.folder), zarr.config.set({"array.write_empty_chunks": True}):
            zarr.open_array(self.folder / slab.variable, mode="r+")[where] = values
            with self._file(slab).open("rb") as file:
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
            raise StoreError(f"{self._file(missing)} is missing; run the same command again")
        with disk_errors(self.folder):
            self._mark.touch()

    def remove(self) -> None:
        """Delete it, from its mark on."""
        with disk_errors(self.folder):
            self._mark.unlink(missing_ok=True)
            if self.folder.exists():
                shutil.rmtree(self.folder)

    def applied(self, dataset: xr.Dataset) -> xr.Dataset:
        """Return a data set that reads the copy if it is whole, and has its chunks in any case."""
        if not self.is_whole:
            return self.tiling.announced(dataset)
        copied = xr.open_zarr(
            self.folder, chunks=None, consolidated=False, mask_and_scale=False, decode_cf=False
        )
        chosen = {
            name: copied[name].variable._replace(attrs=dataset[name].attrs)
            for name in self.tiling.lengths
        }
        return dataset.assign(chosen)

    def _description(self) -> str:
        return json.dumps({"identity": self.identity, **asdict(self.tiling)}, sort_keys=True)

    def _file(self, slab: Slab) -> Path:
        metadata = json.loads((self.folder / slab.variable / "zarr.json").read_text())
        place = metadata["dimension_names"].index(self.tiling.dim)
        index = [0] * len(metadata["shape"])
        index[place] = slab.index
        return self.folder / slab.variable / ".".join(["c", *map(str, index)])


def find_copy(folder: Path) -> Copy | None:
    """Return the copy in a folder, or None."""
    try:
        attributes = json.loads((folder / "zarr.json").read_text())["attributes"]
        described = json.loads(attributes["tiling"])
        return Copy(folder, identity=described.pop("identity"), tiling=Tiling(**described))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _create(group: zarr.Group, array: xr.DataArray, tiling: Tiling) -> Any:
    """Create a variable of which each shard is a slab."""
    chunks = tiling.chunks(array)
    shards = {
        dim: chunks[dim] if dim == tiling.dim else -(-size // chunks[dim]) * chunks[dim]
        for dim, size in ((str(d), int(n)) for d, n in array.sizes.items())
    }
    return group.create_array(
        str(array.name),
        shape=array.shape,
        chunks=tuple(chunks.values()),
        shards=tuple(shards.values()),
        dtype=array.dtype,
        fill_value=np.zeros((), array.dtype)[()],
        dimension_names=[str(dim) for dim in array.dims],
        compressors=[ZstdCodec(level=1), Crc32cCodec()],
        chunk_key_encoding={"name": "default", "separator": "."},
    )
