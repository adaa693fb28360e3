"""Samples of two classes that a line does not separate."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import make_classification


def samples(n_samples: int = 10_000) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Return X of shape (n_samples, 4) and the class of each sample."""
    X, y = make_classification(
        n_samples, 4, n_redundant=0, n_clusters_per_class=2, flip_y=0.1, random_state=0
    )
    return X, y
