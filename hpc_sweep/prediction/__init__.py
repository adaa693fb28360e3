"""Predictions: each partition's best model over a whole data set, chunk by chunk."""

from hpc_sweep.prediction.asked import Asked
from hpc_sweep.prediction.execution import PredictionOutcome, execute_prediction, predict
from hpc_sweep.prediction.prepared import Prediction
from hpc_sweep.prediction.submitting import chain_of, submit_prediction

__all__ = [
    "Asked",
    "Prediction",
    "PredictionOutcome",
    "chain_of",
    "execute_prediction",
    "predict",
    "submit_prediction",
]
