"""The making of a store: all metadata at once, or nothing."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import secrets
import shutil
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec, ZstdCodec

from hpc_sweep.candidates import (
    is_numeric,
    parameter_names,
    value_text,
)
from hpc_sweep.errors import disk_errors
from hpc_sweep.partitions import PartitionGrid, texts_of
from hpc_sweep.store.durable import sync
from hpc_sweep.store.files import writing
from hpc_sweep.store.header import ATTRIBUTE, Header, packed
from hpc_sweep.store.runfolder import real_place
from hpc_sweep.store.sharing import make_folder
from hpc_sweep.store.store import Store
from hpc_sweep.strategies import Strategy

_UNKNOWN: Mapping[str, Any] = {}

LEAST_BLOCK = 16
"""So long is a chunk along the candidates at the least: a few more of them need no more files."""


def create_store(
    path: Path,
    strategy: Strategy,
    grid: PartitionGrid,
    chunks: tuple[int, ...],
    n_splits: int,
    coordinates: xr.Dataset,
    *,
    source_identity: str,
    versions: Mapping[str, str],
    features: Mapping[str, Any] = _UNKNOWN,
    group: int | None = None,
) -> Store:
    """Create a store with all its metadata; nothing is there until it is whole.

    Parameters
    ----------
    path : Path
        Where; an empty folder may be there.
    strategy : Strategy
        Of its spec.
    grid : PartitionGrid
        The partitions.
    chunks : tuple of int
        Result chunks along the partition dimensions.
    n_splits : int
        Length of ``split``.
    coordinates : xarray.Dataset
        Coordinates that the results keep.
    source_identity : str
        Identity of the source.
    versions : mapping
        Versions to record.
    features : mapping
        What the variables are that features are made of, by name, to record.
    group : int, optional
        Whom it is shared with.
    """
    header = Header(
        secrets.token_hex(8),
        strategy.spec.model_dump(mode="json"),
        strategy.spec.digest(),
        source_identity,
        grid.dims,
        grid.shape,
        grid.read_chunks,
        chunks,
        n_splits,
        dict(versions),
        max(strategy.n_rows, LEAST_BLOCK) if strategy.is_parted else strategy.n_rows,
        features=dict(features),
    )
    path = real_place(path)
    with made_whole(path, header.id, group) as temporary:
        write_metadata(Store(temporary, header, strategy), coordinates)
    return Store(path, header, strategy)


@contextlib.contextmanager
def made_whole(path: Path, token: str, group: int | None = None) -> Iterator[Path]:
    """Context with a folder to make a zarr group in, which then is at `path`, or not at all.

    Parameters
    ----------
    path : Path
        Where; an empty folder may be there.
    token : str
        Random: 16 hexadecimal digits.
    group : int, optional
        Whom it is shared with.

    Raises
    ------
    DiskError
        When the disk refuses.
    """
    temporary = path.with_name(f".{path.name}.{token}.tmp")
    with disk_errors(path):
        remove_unfinished(path)
        try:
            make_folder(temporary, group)
            with writing():
                yield temporary
            for file in (*temporary.rglob("*"), temporary):
                sync(file)
            temporary.rename(path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        sync(path.parent)


def remove_unfinished(path: Path) -> None:
    """Remove what drivers left that were killed while they made this store."""
    name = re.compile(re.escape(f".{path.name}.") + "[0-9a-f]{16}" + re.escape(".tmp"))
    if path.parent.is_dir():
        for folder in path.parent.iterdir():
            if name.fullmatch(folder.name):
                shutil.rmtree(folder, ignore_errors=True)


def write_metadata(store: Store, coordinates: xr.Dataset) -> None:
    """Write all metadata of a store, and the arrays that are written once."""
    header, along = store.header, {store.strategy.dim: store.header.block}
    n_rows = int(store.strategy.in_spec.sum())
    attributes = {
        "Conventions": "CF-1.11",
        "title": f"{store.spec.name}: scores of {n_rows} {store.strategy.dim}s",
        "seed": store.spec.search.seed,
        ATTRIBUTE: packed(dataclasses.asdict(header)),
    }
    group = zarr.create_group(store.path, zarr_format=3, attributes=attributes)
    attached = _names_of_attached(coordinates)
    for array in store.arrays:
        shape = tuple(store.lengths[dim] for dim in array.dims)
        chunks = tuple(along.get(dim, store.lengths[dim]) for dim in array.dims)
        more = {"coordinates": attached} if attached else {}
        create_array(
            group,
            array.name,
            (*header.dims, *array.dims),
            header.shape + shape,
            header.chunks + chunks,
            array.dtype,
            array.fill,
            {**array.attributes, **more},
        )
    for fixed in _fixed_arrays(store, coordinates):
        write_fixed(group, fixed, along)
    consolidate(group)


def write_fixed(group: zarr.Group, array: FixedArray, along: Mapping[str, int]) -> None:
    """Write an array that is written once.

    Parameters
    ----------
    group : zarr.Group
        Where.
    array : tuple
        Name, dimensions, values, attributes.
    along : mapping of str to int
        Lengths of chunks along dimensions; others are whole.
    """
    name, dims, values, attrs = array
    dtype = "str" if values.dtype.kind in "OUT" else values.dtype.name
    fill = attrs.get("_FillValue", "" if dtype == "str" else 0)
    chunks = tuple(along.get(dim, n) for dim, n in zip(dims, values.shape, strict=True))
    created = create_array(group, name, dims, values.shape, chunks, dtype, fill, attrs)
    created[...] = values


def consolidate(group: zarr.Group) -> None:
    """Put all metadata of a group into its own."""
    with warnings.catch_warnings():
        # zarr warns that version 3 does not specify this yet; xarray reads and writes it
        warnings.filterwarnings("ignore", message=".*[Cc]onsolidated metadata")
        zarr.consolidate_metadata(group.store)


def create_array(
    group: zarr.Group,
    name: str,
    dims: tuple[str, ...],
    shape: tuple[int, ...],
    chunks: tuple[int, ...],
    dtype: str,
    fill: Any,
    attributes: Mapping[str, Any],
) -> Any:
    """Create an array of a store: compressed, with checksums, one file a chunk."""
    return group.create_array(
        name,
        shape=shape,
        chunks=tuple(max(1, n) for n in chunks),
        dtype=str if dtype == "str" else dtype,
        fill_value=fill,
        dimension_names=dims,
        attributes={k: v for k, v in attributes.items() if k != "_FillValue"},
        compressors=[ZstdCodec(level=1), Crc32cCodec()],
        # names as `chunk_name` has them
        chunk_key_encoding={"name": "v2" if dtype == "str" else "default", "separator": "."},
    )


def _names_of_attached(coordinates: xr.Dataset) -> str:
    """Return the CF ``coordinates`` attribute: names of those that are not dimensions."""
    return " ".join(str(name) for name in coordinates.coords if name not in coordinates.dims)


IN_SPEC = {"long_name": "whether the spec asks for the candidate, so that it is ranked"}

FixedArray = tuple[str, tuple[str, ...], NDArray[Any], dict[str, Any]]


def _fixed_arrays(store: Store, coordinates: xr.Dataset) -> Iterator[FixedArray]:
    """Yield the arrays that are written once: coordinates, and what the candidates are."""
    yield from coordinate_arrays(coordinates)
    if "target" in store.header.dims:
        targets = np.array(store.spec.targets, dtype=object)
        yield "target", ("target",), targets, {"long_name": "target of the search"}
    names = {"feature": store.spec.data.features, "output": store.spec.targets}
    for dim, length in store.lengths.items():
        if dim in names:
            known = np.array(names[dim], dtype=object)
            yield dim, (dim,), known, {"long_name": f"name of the {dim}"}
        elif dim not in coordinates.variables:  # splits may have names
            yield dim, (dim,), np.arange(length), {"long_name": f"index of the {dim}"}
    yield from _about_candidates(store)


def _about_candidates(store: Store) -> Iterator[FixedArray]:
    """Yield what candidates are."""
    candidates = store.candidates
    if not candidates:
        return
    for name, texts, what in (
        ("candidate_id", [c.id for c in candidates], "digest of the candidate's content"),
        ("candidate_json", [c.json for c in candidates], "exact content of the candidate"),
        ("model", [c.model_name for c in candidates], "model of the candidate"),
    ):
        yield name, ("candidate",), np.array(texts, dtype=object), {"long_name": what}
    yield "in_spec", ("candidate",), store.strategy.in_spec, IN_SPEC
    for name in parameter_names(candidates):
        if is_numeric(candidates, name):
            values: NDArray[Any] = np.array([c.params[name] for c in candidates])
        else:
            values = np.array([value_text(c, name) for c in candidates], dtype=object)
        attrs = {"long_name": f"parameter {name}", "comment": 'text: "" does not apply'}
        yield f"param_{name}", ("candidate",), values, attrs


def coordinate_arrays(coordinates: xr.Dataset) -> Iterator[FixedArray]:
    """Yield coordinates as a store has them: encoded, in plain types."""
    # the source's packing is dropped: it would need its fill value as an attribute
    plain = coordinates.drop_encoding()
    encoded, _ = xr.conventions.cf_encoder(dict(plain.variables), {})
    for name, variable in encoded.items():
        attrs = {key: _plain(value) for key, value in variable.attrs.items()}
        labels = np.asarray(variable.values)
        if labels.dtype.kind == "S":  # netCDF's character arrays
            labels = texts_of(labels)
        yield str(name), tuple(map(str, variable.dims)), labels, attrs


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value
