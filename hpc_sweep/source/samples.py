"""The samples of one partition, as estimators take them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Samples:
    """What is read of one partition.

    Attributes
    ----------
    X : array-like or sparse matrix, shape (n_samples, n_features)
        Features.
    y : array-like, shape (n_samples,) or (n_samples, n_targets), or None
        Target or targets.
    """

    X: Any
    y: Any = None

    def __len__(self) -> int:
        return self.X.shape[0] if hasattr(self.X, "shape") else len(self.X)

    @property
    def nbytes(self) -> int:
        """Bytes of the features where they tell; 0 where they do not."""
        return int(getattr(self.X, "nbytes", 0))
