"""What lies where a sweep's store should be, in words that help."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hpc_sweep.errors import StoreError, disk_errors
from hpc_sweep.store import header, predictions
from hpc_sweep.store.runfolder import is_free

NAME_A_STORE = "name the store of a sweep, its output.store"

_BESIDE = {".run": "is the run folder of", ".models": "has the stored models of"}


class ForeignError(StoreError):
    """What is there is for certain no store of a sweep, and is not going to be one."""


def no_store(place: Path, instead: str = "") -> StoreError:
    """Return the error that something is no store of a sweep, and says what it is.

    Parameters
    ----------
    place : Path
        Something.
    instead : str
        What to do, in place of what helps whoever wants to read it.
    """
    found = _attributes(place) if place.is_dir() else {}
    what, helps = what_is(place)
    if found and header.ATTRIBUTE in found:
        what, helps = "has a zarr.json that makes no sense", "bring that back from a backup"
    kind = StoreError if found is None else ForeignError
    return kind(f"{place} is no store of a sweep: it {what}; {instead or helps}")


def what_is(place: Path) -> tuple[str, str]:
    """Return what is at a place, with its verb, and what to do with it."""
    if not place.is_dir():
        return _file(place)
    if is_free(place):
        return "is an empty folder", NAME_A_STORE
    store = place.with_suffix("")
    if place.suffix in _BESIDE and store.is_dir():
        return f"{_BESIDE[place.suffix]} {store}", f"name {store}"
    found = _attributes(place)
    if found is None and (place / "zarr.json").exists():
        return "has a zarr.json that makes no sense", "bring that back from a backup"
    if found is None:
        return "is a folder that is no zarr", NAME_A_STORE
    if predictions.ATTRIBUTE in found:
        return _predictions(place, found[predictions.ATTRIBUTE])
    if header.ATTRIBUTE in found:
        return "has the results of a sweep", "hpc-sweep results shows them"
    return "is zarr of something else, such as data", NAME_A_STORE


def _predictions(place: Path, attribute: Any) -> tuple[str, str]:
    try:
        facts = json.loads(attribute)
        name, sweep = facts["name"], facts["sweep"]
    except (ValueError, KeyError, TypeError):
        name, sweep = "a sweep", ""
    helps = f'hpc-sweep status {place} tells how far it is, xarray.open_zarr("{place}") opens it'
    return f"is a prediction by the models of {name}", helps + (
        f"; the models are in {sweep}" if sweep else ""
    )


def _file(place: Path) -> tuple[str, str]:
    reads = "hpc-sweep results reads it as it is"
    if place.suffix == ".zip":
        unpacked = place.with_suffix(".zarr")
        return "is an archive", f"{reads}, for all else unpack it: unzip {place} -d {unpacked}"
    if place.suffix == ".nc":
        return "is an archive", f"{reads}, for all else name the store that it was made of"
    return "is a file", NAME_A_STORE


def _attributes(place: Path) -> dict[str, Any] | None:
    """Return the attributes of a zarr node; None where there is none."""
    with disk_errors(place, "read"):
        if any((place / name).exists() for name in (".zgroup", ".zarray")):  # of format 2
            return {}
        try:
            found = json.loads((place / "zarr.json").read_text())
            return dict(found.get("attributes", {}))
        except (FileNotFoundError, ValueError, TypeError, AttributeError):
            return None
