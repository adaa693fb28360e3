"""Search scikit-learn models for each partition of a data set, on a laptop or a queue.

>>> import hpc_sweep
>>> results = hpc_sweep.run("sweep.yaml")  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpc_sweep.models import load_model
    from hpc_sweep.prediction import predict
    from hpc_sweep.reporting import report
    from hpc_sweep.results import open_results
    from hpc_sweep.search.dropins import GridSearchCV, RandomizedSearchCV
    from hpc_sweep.spec import SweepSpec, load_spec
    from hpc_sweep.sweep import run
    from hpc_sweep.watching.handle import Handle, attach, submit

__version__ = "0.1.0"

__all__ = [
    "GridSearchCV",
    "Handle",
    "RandomizedSearchCV",
    "SweepSpec",
    "__version__",
    "attach",
    "load_model",
    "load_spec",
    "open_results",
    "predict",
    "report",
    "run",
    "submit",
]

_HOMES = {
    "GridSearchCV": "search.dropins",
    "Handle": "watching.handle",
    "RandomizedSearchCV": "search.dropins",
    "SweepSpec": "spec",
    "attach": "watching.handle",
    "load_model": "models",
    "load_spec": "spec",
    "open_results": "results",
    "predict": "prediction",
    "report": "reporting",
    "run": "sweep",
    "submit": "watching.handle",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for, when it is asked for (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
