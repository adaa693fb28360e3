"""Trees, forests and bags: pruned copies of one tree, the first trees of a larger forest."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from sklearn.base import clone

from hpc_sweep.search.copies import is_seeded
from hpc_sweep.search.rules.base import Data
from hpc_sweep.search.rules.views import Views, kinds_of

_LARGEST_SEED = np.iinfo(np.int32).max


class Trees(Views):
    """Shares the growing of a tree over ``ccp_alpha``; pruning follows it."""

    kinds = kinds_of("DecisionTree", "ExtraTree")
    varied = ("ccp_alpha",)

    def fit(self, estimator: Any, data: Data) -> None:
        """Grow the tree, and prune nothing."""
        estimator.ccp_alpha = 0.0
        super().fit(estimator, data)

    def cut(self, view: Any, data: Data, transformed: Any) -> None:
        """Prune, as a fit does at its end."""
        view._prune_tree()


class Forests(Views):
    """Shares the trees of forests over ``n_estimators`` and ``ccp_alpha``."""

    kinds = kinds_of("RandomForest", "ExtraTrees")
    varied = ("n_estimators", "ccp_alpha")

    def fit(self, estimator: Any, data: Data) -> None:
        """Grow all trees, copied from one: clones would cost a fifth of the time."""
        estimator.ccp_alpha = 0.0
        blank: list[Any] = []

        def tree(append: bool = True, random_state: Any = None) -> Any:
            if not blank:
                names = estimator.estimator_params
                settings = {name: getattr(estimator, name) for name in names}
                blank.append(clone(estimator.estimator_).set_params(**settings))
            made = copy.copy(blank[0])
            made.random_state = random_state.randint(_LARGEST_SEED)
            return made

        estimator._make_estimator = tree
        super().fit(estimator, data)
        del estimator._make_estimator

    def cut(self, view: Any, data: Data, transformed: Any) -> None:
        """Keep the first trees, pruned."""
        trees = view.estimators_[: view.n_estimators]
        if view.ccp_alpha != 0.0:
            trees = [copy.copy(tree) for tree in trees]
            for tree in trees:
                tree.ccp_alpha = view.ccp_alpha
                tree._prune_tree()
        view.estimators_ = trees


class Bags(Views):
    """Shares the members of bags over ``n_estimators``."""

    kinds = kinds_of("Bagging")
    varied = ("n_estimators",)

    def is_repeatable(self, estimator: Any) -> bool:
        """Return whether the bag is seeded: it seeds what is in it."""
        return is_seeded(estimator, deep=False)

    def cut(self, view: Any, data: Data, transformed: Any) -> None:
        """Keep the first members, and what they were drawn with."""
        for name in ("estimators_", "estimators_features_", "_seeds"):
            setattr(view, name, getattr(view, name)[: view.n_estimators])
