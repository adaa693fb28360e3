"""What partitions are called."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Label = int | float | str


def partition_labels(
    coordinates: Mapping[str, NDArray[Any]], dims: Sequence[str], index: Iterable[Any]
) -> dict[str, Label]:
    """Return the labels of one partition by dimension.

    A dimension without coordinate is labelled by its index.
    """
    return {
        dim: plain_label(coordinates[dim][i]) if dim in coordinates else int(i)
        for dim, i in zip(dims, index, strict=True)
    }


def describe(labels: Mapping[str, Label]) -> str:
    """Return ``latitude=52.5, longitude=-1.25`` for messages."""
    return ", ".join(f"{dim}={label}" for dim, label in labels.items()) or "the whole data set"


def text_of(content: bytes) -> str:
    """Return the text that some bytes are: UTF-8, or else Latin-1, so that no two become one."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def texts_of(values: NDArray[np.bytes_]) -> NDArray[Any]:
    """Return netCDF's character arrays as texts, shape and all."""
    known, places = np.unique(values, return_inverse=True)
    texts = np.array([*map(text_of, known.tolist()), ""], dtype=object)
    return texts[places].reshape(values.shape)


def plain_label(value: Any) -> Label:
    """Return a label as JSON has it; dates as text, no more precise than they are."""
    if isinstance(value, np.datetime64):
        return str(np.datetime_as_string(value, unit="auto"))
    plain = value.item() if isinstance(value, np.generic) else value
    return plain if isinstance(plain, (int, float, str)) else str(plain)
