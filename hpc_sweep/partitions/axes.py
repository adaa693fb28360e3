"""Axes: the dimensions of the results, and what of the data belongs to each of their labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Axis:
    """A dimension of the results, along which data is cut.

    A dimension of the data is the simple case: each index is a label of its own. Tiles and
    groups give several indices one label, and labels may lie on two dimensions.

    Attributes
    ----------
    name : str
        Dimension in the results.
    size : int
        How many labels there are.
    dims : tuple of str
        Dimensions of the data that it cuts.
    codes : ndarray of intp, shape (length of each of `dims` …)
        Which label an index belongs to; −1: none.
    labels : ndarray, shape (size,), or None
        The coordinate in the results; None: labelled by index.
    attributes : dict
        Of that coordinate.
    """

    name: str
    size: int
    dims: tuple[str, ...]
    codes: NDArray[np.intp]
    labels: NDArray[Any] | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def width(self) -> int | None:
        """How many indices of a dimension a label has, one after the other; None: no rule."""
        width = int((self.codes == 0).sum())
        regular = len(self.dims) == 1 and width > 0
        same = regular and np.array_equal(self.codes, np.arange(self.codes.size) // width)
        return width if same else None

    @property
    def is_dimension(self) -> bool:
        """Whether it is a dimension of the data as it is."""
        return self.dims == (self.name,) and self.size == self.codes.size and self.width == 1

    @property
    def n_missing(self) -> int:
        """How many indices belong to no label."""
        return int((self.codes < 0).sum())

    @cached_property
    def spans(self) -> dict[str, tuple[NDArray[np.intp], NDArray[np.intp]]]:
        """By dimension, first index of each label, and the one behind the last.

        A label that nothing belongs to begins behind everything and ends at 0.
        """
        where = np.nonzero(self.codes >= 0)
        codes = self.codes[where]
        spans = {}
        for dim, length, indices in zip(self.dims, self.codes.shape, where, strict=True):
            low, high = np.full(self.size, length), np.zeros(self.size, dtype=np.intp)
            np.minimum.at(low, codes, indices)
            np.maximum.at(high, codes, indices + 1)
            spans[dim] = low, high
        return spans
