"""Models after the search, given back by labels or by place."""

from hpc_sweep.models.loading import Models, load_model, open_models

__all__ = ["Models", "load_model", "open_models"]
