"""Evaluate the candidates of partitions, in process, with scikit-learn's numbers."""

from hpc_sweep.search.evaluator import Evaluator, Model, Setting, Task
from hpc_sweep.search.results import Evaluation, Evaluations
from hpc_sweep.search.splits import Split, Splits

__all__ = ["Evaluation", "Evaluations", "Evaluator", "Model", "Setting", "Split", "Splits", "Task"]
