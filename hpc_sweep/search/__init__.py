"""Evaluate the candidates of one partition, in process, with scikit-learn's numbers."""

from hpc_sweep.search.evaluate import Evaluation, Model, Split, evaluate

__all__ = ["Evaluation", "Model", "Split", "evaluate"]
