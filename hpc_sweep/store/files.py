"""Files of arrays: their names, and what zarr is told when it writes them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import zarr


def chunk_name(dtype: str, index: Sequence[int]) -> str:
    """Return the name of a chunk's file.

    Text has other names than numbers: an array that changes from one to the other has both
    kinds of files beside each other for a moment, and readers of either metadata find theirs.
    """
    return ".".join(map(str, index)) or "0" if dtype == "str" else ".".join(["c", *map(str, index)])


def fixed_files(
    folder: Path, dtype: str, shape: Sequence[int], chunks: Sequence[int]
) -> list[Path]:
    """Return the files of an array that is written as a whole."""
    counts = (-(-n // c) for n, c in zip(shape, chunks, strict=True))
    return [folder / chunk_name(dtype, index) for index in np.ndindex(*counts)]


@contextlib.contextmanager
def writing() -> Iterator[None]:
    """Context in which zarr writes all chunks, also those that hold only fill values."""
    with zarr.config.set({"array.write_empty_chunks": True, "threading.max_workers": 1}):
        yield
