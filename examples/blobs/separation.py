"""A scorer of clusters: how far they lie apart, against how wide they are."""

from __future__ import annotations

from typing import Any

from sklearn.metrics import calinski_harabasz_score


def separation(estimator: Any, X: Any, y: Any = None) -> float:
    """Return the index of Caliński and Harabasz of a fitted estimator's clusters."""
    return float(calinski_harabasz_score(X, estimator.predict(X)))
