"""Sharing rules: one file each, and the list of them."""

from hpc_sweep.search.rules.base import Data, Fitted, Rule
from hpc_sweep.search.rules.boosting import AdaBoost, GradientBoosting, HistGradientBoosting
from hpc_sweep.search.rules.forests import Bags, Forests
from hpc_sweep.search.rules.linear import Linear
from hpc_sweep.search.rules.neighbors import Neighbors
from hpc_sweep.search.rules.prefixes import Prefixes

STEP_RULES: tuple[Rule, ...] = (
    Forests(),
    Bags(),
    GradientBoosting(),
    HistGradientBoosting(),
    AdaBoost(),
    Neighbors(),
)
"""Rules for single estimators, and for steps of pipelines."""

_PREFIXES = Prefixes(STEP_RULES)

RULES: tuple[Rule, ...] = (Linear(_PREFIXES), *STEP_RULES, _PREFIXES)
"""All rules; the first one that matches is taken."""

__all__ = ["RULES", "Data", "Fitted", "Rule"]
