"""What `verify` finds, and how it looks at files of any store."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from hpc_sweep.errors import StoreError
from hpc_sweep.store import RunFolder, chunk_name, fixed_files, is_known_dead, read_holder

CHECKSUM_BYTES = 4

AS_THE_GROUP_SAYS = "write there what STORE/zarr.json has of it"
"""What mends metadata that never change."""

Nodes = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Finding:
    """One fault of a store.

    Attributes
    ----------
    file : str
        Where.
    fault : str
        What is wrong.
    remedy : str
        What mends it.
    """

    file: str
    fault: str
    remedy: str


@dataclass
class Verification:
    """What was looked at, and what is wrong.

    Attributes
    ----------
    store : str
        Which.
    driver : str or None
        Who is at work on it: what is being written now was looked at twice.
    result_chunks, result_chunks_done : int
        How many there are, and how many are done; of predictions, chunks.
    files, bytes : int
        How much was read.
    findings : list of Finding
        What is wrong.
    kind : {"sweep", "prediction"}
        Which kind of store it is.
    """

    store: str
    driver: str | None = None
    result_chunks: int = 0
    result_chunks_done: int = 0
    files: int = 0
    bytes: int = 0
    findings: list[Finding] = field(default_factory=list)
    kind: str = "sweep"

    @property
    def is_complete(self) -> bool:
        """Whether every result chunk is done."""
        return self.result_chunks == self.result_chunks_done

    def look_at(self, file: Path) -> str:
        """Return what is wrong with the file of a chunk, or ``""``."""
        fault, size = checksum_fault(file)
        self.files += 1
        self.bytes += size
        return fault


def driver_of(run: RunFolder) -> str | None:
    """Return who is at work on a store, as far as that is known from its run folder."""
    holders = map(read_holder, (run.lease, *run.rivals()))
    alive = [str(holder) for holder in holders if holder and not is_known_dead(holder)]
    return ", ".join(alive) or None


def nodes_of(place: Path) -> dict[str, dict[str, Any]]:
    """Return the metadata of all arrays, as the group has them.

    Raises
    ------
    StoreError
        When it has none.
    """
    try:
        root = json.loads((place / "zarr.json").read_text())
        nodes: dict[str, dict[str, Any]] = root["consolidated_metadata"]["metadata"]
    except (ValueError, KeyError, TypeError):
        raise StoreError(
            f"{place / 'zarr.json'} has no consolidated metadata; bring it back from a "
            f"backup, or delete {place} to compute all again"
        ) from None
    return nodes


def metadata_faults(
    place: Path, nodes: Nodes, names: Iterable[str], remedy: str
) -> Iterator[Finding]:
    """Yield nodes whose own metadata are not those of the group, and names without a node."""
    for name, node in nodes.items():
        file = place / name / "zarr.json"
        try:
            own = json.loads(file.read_text())
        except FileNotFoundError:
            yield Finding(str(file), "is missing, which was made with the store", remedy)
            continue
        except ValueError:
            own = None
        if own != node:
            yield Finding(str(file), "is not what the group's metadata say of it", remedy)
    for name in names:
        if name not in nodes:
            file = place / "zarr.json"
            yield Finding(str(file), f"does not know {name}", "bring it back from a backup")


def fixed_faults(
    found: Verification, place: Path, nodes: Nodes, results: Iterable[str]
) -> Iterator[Finding]:
    """Yield damage of what was written with the store: coordinates, what candidates are."""
    others = {*results}
    for name, node in nodes.items():
        if name in others:
            continue
        chunks = node["chunk_grid"]["configuration"]["chunk_shape"]
        for file in fixed_files(place / name, dtype_of(node), node["shape"], chunks):
            fault = found.look_at(file)
            if fault:
                remedy = f"bring it back from a backup, or delete {place} to compute all again"
                yield Finding(str(file), f"{fault}, which was made with the store", remedy)


def strays(place: Path, nodes: Nodes, beside: Iterable[str], again: str) -> Iterator[Finding]:
    """Yield files that belong to nothing, and what killed writers left."""
    left = f"{again} (it removes what a killed writer left)"
    for folder, known in _known_files(place, nodes, beside):
        if not folder.is_dir():
            continue
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.name not in known)
        for name in names:
            if name.endswith((".tmp", ".partial")):
                yield Finding(str(folder / name), "was left by a killed writer", left)
            else:
                yield Finding(str(folder / name), "is nothing of the store", "move it elsewhere")


def _known_files(
    place: Path, nodes: Nodes, beside: Iterable[str]
) -> Iterator[tuple[Path, set[str]]]:
    """Yield the folders of a store with the names that may be in them."""
    yield place, {"zarr.json", *nodes, *beside}
    for name, node in nodes.items():
        chunks = node["chunk_grid"]["configuration"]["chunk_shape"]
        counts = [-(-n // c) for n, c in zip(node["shape"], chunks, strict=True)]
        names = {chunk_name(dtype_of(node), index) for index in np.ndindex(*counts)}
        yield place / name, {"zarr.json", *names}


def dtype_of(node: Mapping[str, Any]) -> str:
    """Return the type of an array, as `chunk_name` wants it."""
    return "str" if node["data_type"] == "string" else str(node["data_type"])


def checksum_fault(file: Path) -> tuple[str, int]:
    """Return what is wrong with the file of a chunk, or ``""``, and how many bytes it has.

    Its last four bytes are the CRC-32C of those before them (codec ``crc32c`` of zarr 3),
    little-endian.
    """
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return "is missing", 0
    if len(content) <= CHECKSUM_BYTES:
        return f"is cut short ({len(content)} bytes)", len(content)
    right = int.from_bytes(content[-CHECKSUM_BYTES:], "little")
    if google_crc32c.value(memoryview(content)[:-CHECKSUM_BYTES].tobytes()) != right:
        return "is damaged: its checksum is wrong", len(content)
    return "", len(content)
