"""A store's files in one zip, as they are."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

from hpc_sweep.errors import StoreError
from hpc_sweep.store import Store

BESIDE = {".run": ("events*.jsonl", "charged-*.jsonl", "spec.json", "*.html"), ".models": ("*",)}
"""What is kept of the folders beside a store, by their endings: never keys, logs and parts."""
PIECE_BYTES = 1 << 20


def kept_beside(store: Store) -> list[tuple[Path, str]]:
    """Return files beside a store that are kept with it, each with its name in an archive."""
    found = []
    for ending, patterns in BESIDE.items():
        folder = store.path.with_name(store.path.name + ending)
        files = {file for pattern in patterns for file in folder.glob(pattern)}
        found += [
            (file, f"{ending}/{file.name}")
            for file in sorted(files)
            if file.is_file() and not file.name.startswith(".") and file.stat().st_size
        ]
    return found


def write_zip(store: Store, place: Path, *, with_store: bool = True) -> None:
    """Write a store, and what is kept of its run folder, as one zip, and read it again.

    Only text of the run folder is compressed: chunks and models are already.

    Raises
    ------
    StoreError
        When what was read back is not what was written.
    """
    with zipfile.ZipFile(place, "w", zipfile.ZIP_STORED, strict_timestamps=False) as target:
        for file, name in _members(store, with_store):
            _copy(file, name, target)
    with zipfile.ZipFile(place) as written:
        damaged = written.testzip()
    if damaged is not None:
        raise StoreError(f"{damaged} in {place} is not as it was written; try another disk")


def _members(store: Store, with_store: bool) -> Iterator[tuple[Path, str]]:
    if with_store:
        yield store.path / "zarr.json", "zarr.json"
        for folder in sorted(store.path.iterdir()):
            if folder.is_dir():
                for file in sorted(folder.iterdir()):
                    yield file, f"{folder.name}/{file.name}"
    yield from kept_beside(store)


def _copy(file: Path, name: str, target: zipfile.ZipFile) -> None:
    """Copy a file piece by piece."""
    member = zipfile.ZipInfo.from_file(file, name, strict_timestamps=False)
    if name.startswith(".run/"):
        member.compress_type = zipfile.ZIP_DEFLATED
    with file.open("rb") as source, target.open(member, "w") as copy:
        shutil.copyfileobj(source, copy, PIECE_BYTES)
