"""A verified store in one file that is kept: a zip of the zarr, or netCDF."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from hpc_sweep.errors import StoreError, disk_errors
from hpc_sweep.keeping.findings import Verification
from hpc_sweep.keeping.netcdf import write_netcdf
from hpc_sweep.keeping.verify import verify
from hpc_sweep.keeping.zipping import kept_beside, write_zip
from hpc_sweep.store import Store, sync

KINDS: Mapping[str, str] = {".zip": "zip", ".nc": "netcdf"}


@dataclass(frozen=True)
class Archive:
    """What was written.

    Attributes
    ----------
    archive : str
        Where.
    kind : str
        ``zip`` or ``netcdf``.
    store : str
        Of which store.
    bytes : int
        How large it is.
    complete : bool
        Whether the sweep was finished.
    beside : str or None
        Of netCDF: a zip with event log and models, if there are any; a zip has them inside.
    """

    archive: str
    kind: str
    store: str
    bytes: int
    complete: bool
    beside: str | None = None


def archive(
    store: str | Path, dest: str | Path, *, partial: bool = False, force: bool = False
) -> Archive:
    """Copy a store that is verified first into one file, which is verified too.

    The file takes its name when it is whole. Memory is that of one chunk.

    Parameters
    ----------
    store : path
        A store.
    dest : path
        ``.zip``: its files as they are, for ``xarray.open_zarr("zip::DEST")``, event log below
        ``.run``, models below ``.models``. ``.nc``: netCDF 4 for ``xarray.open_dataset``, with
        the same chunks.
    partial : bool
        Whether a half-finished store may be archived, without its parts.
    force : bool
        Whether `dest` may be replaced.

    Raises
    ------
    StoreError
        When a driver is at work on the store, it has a fault or is half finished, or `dest` is
        there.
    DiskError
        When the disk refuses.
    """
    opened, place = Store.open(store), Path(dest).absolute()
    kind = _kind(place)
    _check_place(opened, place, force)
    found = verify(store)
    _check(found, partial)
    write = write_zip if kind == "zip" else write_netcdf
    size = _written(place, lambda temporary: write(opened, temporary))
    beside = place.with_name(f"{place.name}.beside.zip")
    has_beside = kind == "netcdf" and bool(kept_beside(opened))
    if has_beside:
        _written(beside, lambda temporary: write_zip(opened, temporary, with_store=False))
    return Archive(
        str(place),
        kind,
        str(opened.path),
        size,
        found.is_complete,
        str(beside) if has_beside else None,
    )


def _kind(place: Path) -> str:
    if place.suffix not in KINDS:
        raise StoreError(
            f"{place} names no kind of archive; end its name with {' or '.join(KINDS)}"
        )
    return KINDS[place.suffix]


def _check_place(store: Store, place: Path, force: bool) -> None:
    """Raise where the archive cannot be written, before all else is looked at."""
    if place.is_dir():
        raise StoreError(f"{place} is a folder; name a file")
    if place.exists() and not force:
        raise StoreError(f"{place} exists already; name another file, or replace it by --force")
    if not place.parent.is_dir():
        raise StoreError(f"{place.parent} does not exist; make it first")
    if place.resolve().is_relative_to(store.path.resolve()):
        raise StoreError(f"{place} is inside the store; name a file elsewhere")


def _check(found: Verification, partial: bool) -> None:
    if found.driver:
        raise StoreError(
            f"a driver is at work on {found.store}, {found.driver}; wait for it, or cancel it "
            f"(hpc-sweep cancel {found.store})"
        )
    if found.findings:
        first, count = found.findings[0], len(found.findings)
        raise StoreError(
            f"{found.store} has {count:,} fault{'s' if count > 1 else ''}, so it is not archived; "
            f"the first: {first.file} {first.fault}; {first.remedy} (hpc-sweep verify tells all)"
        )
    if not found.is_complete and not partial:
        raise StoreError(
            f"{found.store} is half finished: {found.result_chunks_done:,} of "
            f"{found.result_chunks:,} result chunks are done; run the spec again, or archive what "
            "there is by --partial"
        )


def _written(place: Path, write: Callable[[Path], None]) -> int:
    """Let a file be written beside, flush it to the disk, and give it its name."""
    temporary = place.with_name(f".{place.name[:100]}.{secrets.token_hex(4)}.tmp")
    with disk_errors(place):
        try:
            write(temporary)
            sync(temporary)
            size = temporary.stat().st_size
            temporary.replace(place)
        finally:
            temporary.unlink(missing_ok=True)
        sync(place.parent)
    return size
