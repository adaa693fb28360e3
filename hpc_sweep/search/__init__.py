"""Evaluate the candidates of partitions, in process, with scikit-learn's numbers."""

from hpc_sweep.search.building import build_models, setting_of
from hpc_sweep.search.coefficients import Affine, affine
from hpc_sweep.search.collective import Collective
from hpc_sweep.search.daskml import DaskML, unsuited
from hpc_sweep.search.evaluator import Evaluator
from hpc_sweep.search.finishing import finish
from hpc_sweep.search.refit import held_out_scores, refitted, try_refit
from hpc_sweep.search.results import Evaluation, Evaluations, brief
from hpc_sweep.search.rules.whole import Problem, coefficients_at_once
from hpc_sweep.search.slicing import Slice, left_of, slices_of
from hpc_sweep.search.splits import Split, Splits
from hpc_sweep.search.tasks import Model, Setting, Sums, Task
from hpc_sweep.search.training import Blocks, Trainer, takes_classes
from hpc_sweep.search.watch import NOBODY, Watch
from hpc_sweep.search.weighing import called, weighs, weight_parameter

__all__ = [
    "NOBODY",
    "Affine",
    "Blocks",
    "Collective",
    "DaskML",
    "Evaluation",
    "Evaluations",
    "Evaluator",
    "Model",
    "Problem",
    "Setting",
    "Slice",
    "Split",
    "Splits",
    "Sums",
    "Task",
    "Trainer",
    "Watch",
    "affine",
    "brief",
    "build_models",
    "called",
    "coefficients_at_once",
    "finish",
    "held_out_scores",
    "left_of",
    "refitted",
    "setting_of",
    "slices_of",
    "takes_classes",
    "try_refit",
    "unsuited",
    "weighs",
    "weight_parameter",
]
