"""What is known of scorers, and what they leave behind."""

from __future__ import annotations

from typing import Any

import joblib
from sklearn.metrics._scorer import _BaseScorer, _MultimetricScorer, _PassthroughScorer

from hpc_sweep.search.copies import is_trusted
from hpc_sweep.search.rules import Data


def is_own(scorer: Any) -> bool:
    """Return whether a scorer is scikit-learn's, which sees of an estimator what it predicts."""
    if isinstance(scorer, _MultimetricScorer):
        return all(map(is_own, scorer._scorers.values()))
    return isinstance(scorer, (_BaseScorer, _PassthroughScorer))


def is_known(scorer: Any) -> bool:
    """Return whether a scorer is scikit-learn's, and so is the function that it asks."""
    if isinstance(scorer, _MultimetricScorer):
        return all(map(is_known, scorer._scorers.values()))
    return is_own(scorer) and is_trusted(getattr(scorer, "_score_func", scorer))


class Trace:
    """Finds out whether a scorer has written into a split.

    Parameters
    ----------
    scorer : callable
        What scores; nothing is looked at where it is known.
    data : Data
        The split, as it is before.
    """

    def __init__(self, scorer: Any, data: Data) -> None:
        weights = data.weights and (data.weights.train, data.weights.test)
        self._samples = [data.y_train, data.y_test, weights]
        if not is_own(scorer):
            self._samples += [data.X_train, data.X_test]
        self._before = None if is_known(scorer) else joblib.hash(self._samples)

    def is_left(self) -> bool:
        """Return whether something is not what it was."""
        return self._before is not None and joblib.hash(self._samples) != self._before
