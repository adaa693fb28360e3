"""Open what `data.store` names: one store, or several joined."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec
import xarray as xr

from hpc_sweep.errors import Fault, SpecError, disk_cause, disk_error, listed, nearest
from hpc_sweep.source.joining import join_stores
from hpc_sweep.spec import DataSpec

if TYPE_CHECKING:
    import zarr

_ZARR = (".zarr", ".zip")
_LOCAL_COPIES = ("simplecache::", "filecache::", "blockcache::")


def expanded_places(data: DataSpec) -> list[str]:
    """Return the paths and URLs of the data, patterns with ``*`` replaced by what they fit.

    Raises
    ------
    SpecError
        When a pattern fits nothing, or a path does not exist.
    """
    places: list[str] = []
    for named in data.stores:
        # not all of xarray's engines know it
        place = named.removeprefix("file://").removeprefix("local://")
        if not any(sign in place for sign in "*?["):
            _check_existence(place)
            places.append(place)
            continue
        files, folder = fsspec.core.url_to_fs(place)
        found = [files.unstrip_protocol(path) for path in sorted(files.glob(folder))]
        if not found:
            raise SpecError([Fault("data.store", f"nothing fits '{place}'")])
        places += [path.removeprefix("file://") for path in found]
    return places


def open_stores(data: DataSpec, places: Sequence[str], named: Collection[str] = ()) -> xr.Dataset:
    """Open one store, or several and join them, lazily.

    Parameters
    ----------
    data : DataSpec
        How they are opened.
    places : sequence of str
        Paths and URLs.
    named : collection of str
        Variables that matter, or what is made of them.

    Raises
    ------
    SpecError
        When one cannot be opened, or they do not fit together.
    DiskError
        When a disk fails.
    """
    opened = {place: _open(place, data) for place in places}
    if len(opened) == 1:
        return opened[places[0]]
    return join_stores(opened, named)


def is_url(place: str) -> bool:
    """Tell whether a place is a URL, maybe a chain of several."""
    return "://" in place or "::" in place


def _check_existence(place: str) -> None:
    if is_url(place) or os.path.exists(place):  # noqa: PTH110, Path.exists may raise
        return
    hint = nearest(Path(place).name, [path.name for path in Path(place).parent.glob("*")])
    raise SpecError([Fault("data.store", f"'{place}' does not exist{hint}")])


def _open(place: str, data: DataSpec) -> xr.Dataset:
    options: dict[str, Any] = {"chunks": None, "decode_timedelta": False}
    if _is_zarr(place, data):
        options["engine"] = "zarr"
    if data.group is not None:
        options["group"] = data.group
    options |= data.open_options
    try:
        if options.get("engine") == "zarr":
            # none is fine; xarray would warn, and filters of warnings are not for threads
            options.setdefault("consolidated", _is_consolidated(place, data))
        dataset = xr.open_dataset(_opened_place(place), **options)
    except Exception as error:  # each of xarray's engines raises its own kinds
        raise _refusal(place, data, error) from error
    if not dataset.variables:
        where = "the store" if data.group is None else f"the group '{data.group}'"
        hint = f"; data.group: one of {listed(groups)}" if (groups := _groups(place, data)) else ""
        key = "data.store" if data.group is None else "data.group"
        raise SpecError([Fault(key, f"{where} '{place}' has no variables{hint}")])
    return dataset


def _is_zarr(place: str, data: DataSpec) -> bool:
    if is_url(place):
        # zip::file:///a/b.zip: the first names what is opened, unless it holds a path
        bare = place.rstrip("/")
        return bare.endswith(_ZARR) or ("." not in bare[bare.rfind("/") :] and _holds(bare, data))
    return Path(place).is_dir() or place.endswith(".zip")


def _holds(folder: str, data: DataSpec) -> bool:
    """Tell whether a URL whose name does not say it is that of a zarr group."""
    try:
        options = data.open_options.get("storage_options") or {}
        files, root = fsspec.core.url_to_fs(folder, **options)
        return any(files.exists(f"{root}/{name}") for name in ("zarr.json", ".zgroup"))
    except Exception:  # what is wrong is told when it is opened
        return False


def _opened_place(place: str) -> Any:
    if place.endswith(".zip") and not is_url(place):
        import zarr

        return zarr.storage.ZipStore(place, mode="r")
    if place.startswith(_LOCAL_COPIES) and not place.rstrip("/").endswith(_ZARR):
        return fsspec.open_local(place)
    return place


def _is_consolidated(place: str, data: DataSpec) -> bool:
    return _zarr_root(place, data).metadata.consolidated_metadata is not None


def _zarr_root(place: str, data: DataSpec) -> zarr.Group:
    import zarr

    options = data.open_options.get("storage_options")
    return zarr.open_group(_opened_place(place), mode="r", storage_options=options)


def _refusal(place: str, data: DataSpec, error: Exception) -> Exception:
    cause = disk_cause(error)
    if cause is not None and not isinstance(cause, PermissionError):
        return disk_error(cause, place, "read")
    groups = _groups(place, data)
    if data.group is not None and groups and data.group.strip("/") not in groups:
        hint = nearest(data.group, groups) or f"; it has {listed(groups)}"
        return SpecError([Fault("data.group", f"'{place}' has no group '{data.group}'{hint}")])
    if isinstance(error, ImportError):
        message = f"'{place}' needs a library that is not installed here: {error}"
        return SpecError([Fault("data.store", message)])
    text = " ".join(str(error).split())[:300] or type(error).__name__
    if data.open_options and isinstance(error, TypeError):
        return SpecError([Fault("data.open_options", text)])
    hint = f"; simplecache::{place} copies a file first" if place.startswith("http") else ""
    if Path(place).is_dir() and (files := sorted(path.name for path in Path(place).glob("*.*"))):
        hint = (
            f"; it holds {listed(files, 3)}: name one, or all by a pattern such as '{place}/*.nc'"
        )
    message = f"'{place}' is not a data set that xarray can open ({text}){hint}"
    return SpecError([Fault("data.store", message)])


def _groups(place: str, data: DataSpec) -> list[str]:
    """Return the paths of all groups in a store, as far as they can be known."""
    try:
        if _is_zarr(place, data):
            import zarr

            members = _zarr_root(place, data).members(None)
            return [path for path, node in members if isinstance(node, zarr.Group)]
        import netCDF4

        with netCDF4.Dataset(place) as file:
            return list(_subgroups(file))
    except Exception:  # it is only for a hint
        return []


def _subgroups(group: Any, above: str = "") -> Iterable[str]:
    for name, child in group.groups.items():
        yield f"{above}{name}"
        yield from _subgroups(child, f"{above}{name}/")
