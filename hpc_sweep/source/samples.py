"""The samples of one partition, as estimators take them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Samples:
    """What is read of one partition.

    Attributes
    ----------
    X : array-like or sparse matrix, shape (n_samples, n_features)
        Features.
    y : array-like, shape (n_samples,) or (n_samples, n_targets), or None
        Target or targets.
    groups : ndarray, shape (n_samples,), or None
        Which group each belongs to, where the splits go by that.
    weights : ndarray, shape (n_samples,), or None
        Sample weights.
    held_out : Samples or None
        Those that no search sees; None where the spec holds none out.
    """

    X: Any
    y: Any = None
    groups: NDArray[Any] | None = None
    weights: Any = None
    held_out: Samples | None = None

    def __len__(self) -> int:
        return self.X.shape[0] if hasattr(self.X, "shape") else len(self.X)

    @property
    def nbytes(self) -> int:
        """Bytes of features and targets where they tell; 0 where they do not."""
        others = 0 if self.held_out is None else self.held_out.nbytes
        return int(getattr(self.X, "nbytes", 0)) + int(getattr(self.y, "nbytes", 0)) + others

    @property
    def given(self) -> tuple[Any, Any, Any]:
        """What estimators are given: X, y and weights, of which the last two may be None."""
        return self.X, self.y, self.weights

    def take(self, indices: NDArray[np.intp]) -> Samples:
        """Return some of the samples, in the order of `indices`; these very ones where all are."""
        if np.array_equal(indices, np.arange(len(self))):
            return self
        parts = (self.X, self.y, self.groups, self.weights)
        return Samples(*(None if part is None else _rows(part, indices) for part in parts))


def _rows(values: Any, indices: NDArray[np.intp]) -> Any:
    """Return rows of what scikit-learn takes as samples: frames, lists, sparse matrices too."""
    if isinstance(values, np.ndarray):
        return values[indices]
    from sklearn.utils import _safe_indexing

    return _safe_indexing(values, indices)
