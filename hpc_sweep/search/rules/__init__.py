"""Sharing rules: one file each, and the list of them."""

from hpc_sweep.search.rules.base import Data, Fitted, Rule, Weights
from hpc_sweep.search.rules.boosters import LightGBM, XGBoost
from hpc_sweep.search.rules.boosting import AdaBoost, GradientBoosting, HistGradientBoosting
from hpc_sweep.search.rules.features import Components, Selections
from hpc_sweep.search.rules.linear import Linear
from hpc_sweep.search.rules.neighbors import Neighbors
from hpc_sweep.search.rules.prefixes import Prefixes
from hpc_sweep.search.rules.trees import Bags, Forests, Trees

STEP_RULES: tuple[Rule, ...] = (
    Trees(),
    Forests(),
    Bags(),
    GradientBoosting(),
    HistGradientBoosting(),
    AdaBoost(),
    XGBoost(),
    LightGBM(),
    Neighbors(),
    Selections(),
    Components(),
)
"""Rules for single estimators, and for steps of pipelines."""

_PREFIXES = Prefixes(STEP_RULES)

RULES: tuple[Rule, ...] = (Linear(_PREFIXES), *STEP_RULES, _PREFIXES)
"""All rules; the first one that matches is taken."""

__all__ = ["RULES", "Data", "Fitted", "Rule", "Weights"]
