"""Files of a store: which there should be, and whether their checksums are right."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from hpc_sweep.keeping.zipping import BESIDE
from hpc_sweep.store import Store, chunk_name, fixed_files

CHECKSUM_BYTES = 4

Nodes = Mapping[str, Mapping[str, Any]]


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


def fixed_files_of(store: Store, nodes: Nodes) -> Iterator[Path]:
    """Yield the files of what was written with the store: coordinates, what candidates are."""
    results = {array.name for array in store.arrays}
    for name, node in nodes.items():
        if name not in results:
            chunks = node["chunk_grid"]["configuration"]["chunk_shape"]
            yield from fixed_files(store.path / name, _dtype(node), node["shape"], chunks)


def known_files(store: Store, nodes: Nodes) -> Iterator[tuple[Path, set[str]]]:
    """Yield the folders of a store with the names that may be in them."""
    yield store.path, {"zarr.json", *nodes, *BESIDE}
    for name, node in nodes.items():
        counts = [
            -(-n // c)
            for n, c in zip(
                node["shape"], node["chunk_grid"]["configuration"]["chunk_shape"], strict=True
            )
        ]
        names = {chunk_name(_dtype(node), index) for index in np.ndindex(*counts)}
        yield store.path / name, {"zarr.json", *names}


def _dtype(node: Mapping[str, Any]) -> str:
    return "str" if node["data_type"] == "string" else str(node["data_type"])
