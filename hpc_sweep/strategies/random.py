"""Random: candidates drawn once, the same for all partitions."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any, cast

import numpy as np

from hpc_sweep.candidates import Candidate, expand, repeated
from hpc_sweep.errors import Fault
from hpc_sweep.spec import ModelSpec, RandomSpec, SearchSpec, SweepSpec, json_like
from hpc_sweep.strategies.distributions import build_spaces, space_faults
from hpc_sweep.strategies.grid import Grid


class Random(Grid):
    """``n_iter`` settings of each model, as scikit-learn's ``ParameterSampler`` draws them."""

    @classmethod
    def faults(cls, search: SearchSpec, models: Mapping[str, ModelSpec]) -> Iterable[Fault]:
        """Yield distributions that cannot be drawn from."""
        for place, model in models.items():
            yield from space_faults(place, model.param_distributions)

    @classmethod
    def draw(cls, spec: SweepSpec) -> tuple[Candidate, ...]:
        """Draw the candidates with the sweep's seed.

        What was drawn before is left out. Where a model has lists only, these are drawn
        without replacement, at the most as often as they have settings.
        """
        from sklearn.model_selection import ParameterSampler

        search = cast(RandomSpec, spec.search)

        def settings(model: Mapping[str, Any]) -> list[dict[str, Any]]:
            spaces = build_spaces(model["param_distributions"])
            sampler = ParameterSampler(spaces, search.n_iter, random_state=_state(search.seed))
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "The total space of parameters", UserWarning)
                return [json_like(params) for params in sampler]

        found = expand(spec.model_dump(mode="json")["models"], settings)
        again = {second for _, second in repeated(found)}
        return tuple(each for index, each in enumerate(found) if index not in again)


def _state(seed: int) -> Any:
    """Return what NumPy's legacy generator takes: 32 bits, or an array of such."""
    return seed if seed < 2**32 else np.random.RandomState([seed % 2**32, seed >> 32])
