"""XGBoost and LightGBM: the first rounds of a longer fit."""

from __future__ import annotations

from numbers import Integral
from typing import Any, ClassVar

from hpc_sweep.search.rules.base import Data
from hpc_sweep.search.rules.views import Views


class Boosters(Views):
    """Shares rounds over ``n_estimators`` where no round changes those before it.

    Attributes
    ----------
    plain : dict of str to tuple
        Values that a parameter must have; where it is missing, so much the better.
    """

    varied: ClassVar[tuple[str, ...]] = ("n_estimators",)
    plain: ClassVar[dict[str, tuple[Any, ...]]]

    def is_repeatable(self, estimator: Any) -> bool:
        """Return whether it goes on to the last round, from a seed; both have one of their own."""
        params = estimator.get_params(deep=False)
        if not isinstance(params["n_estimators"], Integral) or params["n_estimators"] < 1:
            return False
        is_seeded = params["random_state"] is None or isinstance(params["random_state"], Integral)
        return is_seeded and all(params.get(name) in values for name, values in self.plain.items())


class XGBoost(Boosters):
    """Shares rounds of XGBoost's trees."""

    kinds = frozenset({"xgboost.XGBClassifier", "xgboost.XGBRegressor"})
    plain: ClassVar[dict[str, tuple[Any, ...]]] = {
        "booster": (None, "gbtree"),
        "early_stopping_rounds": (None,),
        "callbacks": (None,),
        "device": (None, "cpu"),
    }

    def cut(self, view: Any, data: Data, transformed: Any) -> None:
        """Keep the first rounds."""
        view._Booster = view.get_booster()[: int(view.n_estimators)]


_ALIASES = (
    "num_iterations",
    "num_iteration",
    "n_iter",
    "num_tree",
    "num_trees",
    "num_round",
    "num_rounds",
    "nrounds",
    "num_boost_round",
    "max_iter",
    "boosting",
    "boost",
    "device",
    "early_stopping",
    "early_stopping_rounds",
    "n_iter_no_change",
)
"""LightGBM's other names of what decides here; it heeds them more than the usual ones."""


class LightGBM(Boosters):
    """Shares rounds of LightGBM's trees.

    ``set_params`` of its estimators notes each parameter a second time, in ``_other_params``.
    """

    kinds = frozenset({"lightgbm.LGBMClassifier", "lightgbm.LGBMRegressor"})
    varied = ("n_estimators", "_other_params")
    plain: ClassVar[dict[str, tuple[Any, ...]]] = {
        "boosting_type": ("gbdt",),
        "early_stopping_round": (None,),
        "device_type": (None, "cpu"),
        **dict.fromkeys(_ALIASES, (None,)),
    }

    def cut(self, view: Any, data: Data, transformed: Any) -> None:
        """Keep the first rounds, read back from text that has all digits."""
        whole = view.booster_
        text = whole.model_to_string(num_iteration=int(view.n_estimators))
        view._Booster = type(whole)(model_str=text)
