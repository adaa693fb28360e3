"""Models after the search, given back by labels or by place."""

from hpc_sweep.models.checking import CheckedModels, ModelFault, check_models
from hpc_sweep.models.loading import Models, load_model, open_models
from hpc_sweep.models.trust import Trust

__all__ = [
    "CheckedModels",
    "ModelFault",
    "Models",
    "Trust",
    "check_models",
    "load_model",
    "open_models",
]
