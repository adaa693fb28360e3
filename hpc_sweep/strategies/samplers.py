"""Optuna's samplers, by the names that a spec calls them."""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Iterator
from typing import Any

from hpc_sweep.errors import listed, nearest
from hpc_sweep.estimators import NameFault, import_object
from hpc_sweep.spec import OptunaSpec

SAMPLERS = {
    "tpe": "TPESampler",
    "random": "RandomSampler",
    "cmaes": "CmaEsSampler",
    "gp": "GPSampler",
    "qmc": "QMCSampler",
    "nsgaii": "NSGAIISampler",
}
"""Optuna's samplers by short names."""


def make_sampler(search: OptunaSpec, seed: int) -> Any:
    """Make the sampler of ``search.sampler``.

    Raises
    ------
    NameFault
        When there is none of that name, or it does not take these parameters.
    """
    given = search.sampler
    ((name, parameters),) = ({given: None} if isinstance(given, str) else given).items()
    path = f"optuna.samplers.{SAMPLERS[name]}" if name in SAMPLERS else name
    if "." not in path.replace(":", "."):
        near = nearest(name, SAMPLERS)
        raise NameFault(f"'{name}' is none of {listed(SAMPLERS)}, nor an import path{near}")
    kind: Any = import_object(path)
    lacking = [
        part for part in ("sample_relative", "sample_independent") if not hasattr(kind, part)
    ]
    if not inspect.isclass(kind) or lacking:
        lack = f" (it lacks {', '.join(lacking)})" if lacking else ""
        raise NameFault(f"'{path}' is no sampler class{lack}")
    known = inspect.signature(kind).parameters
    if "seed" not in known:
        raise NameFault(f"'{path}' takes no seed, so no result could be had again")
    for parameter in parameters or ():
        if parameter == "seed":
            raise NameFault("seed is made of search.seed and the partition's labels; leave it out")
        if parameter not in known:
            near = nearest(parameter, known) or f"; it has {listed(known)}"
            raise NameFault(f"'{path}' has no parameter '{parameter}'{near}")
    try:
        with quiet():
            return kind(**{**(parameters or {}), "seed": seed})
    except Exception as error:  # a user's class may raise anything
        raise NameFault(f"'{path}' cannot be made: {error}") from None


@contextlib.contextmanager
def quiet() -> Iterator[Any]:
    """Give Optuna, without a word of each trial or of what is experimental."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield optuna
    finally:
        optuna.logging.set_verbosity(before)
