"""Random: candidates drawn once, the same for all partitions."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, cast

import numpy as np

from hpc_sweep.candidates import Candidate, expand, repeated
from hpc_sweep.errors import Fault
from hpc_sweep.spec import ModelSpec, RandomSpec, SearchSpec, SweepSpec, json_like
from hpc_sweep.strategies.base import Strategy
from hpc_sweep.strategies.distributions import build_spaces, space_faults
from hpc_sweep.strategies.grid import Grid

Params = dict[str, Any]
"""One setting, as the spec has its values."""


class Random(Grid):
    """``n_iter`` settings of each model, as scikit-learn's ``ParameterSampler`` draws them."""

    @classmethod
    def faults(cls, search: SearchSpec, models: Mapping[str, ModelSpec]) -> Iterable[Fault]:
        """Yield distributions that cannot be drawn from."""
        for place, model in models.items():
            yield from space_faults(place, model.param_distributions)

    @classmethod
    def draw(cls, spec: SweepSpec, before: Strategy | None = None) -> tuple[Candidate, ...]:
        """Draw the candidates with the sweep's seed.

        What was drawn before is left out. Where a model has lists only, these are drawn
        without replacement, at the most as often as they have settings.

        Of a model that the store has, what was drawn for it stays: a larger ``n_iter`` adds
        what a sampler for as many draws besides, a smaller one leaves out the last ones.
        """
        search = cast(RandomSpec, spec.search)
        known = {} if before is None else _drawn(before)

        def settings(model: Mapping[str, Any]) -> list[Params]:
            old = known.get(_content(model))
            if before is None or old is None:
                return _sample(model, search)
            n_before = cast(RandomSpec, before.spec.search).n_iter
            if search.n_iter == n_before:
                return old
            drawn, texts = _sample(model, search), set(map(_text, old))
            more = [each for each in drawn if _text(each) not in texts]
            if search.n_iter < n_before:
                return old[: search.n_iter] if more else drawn
            return old + more[: search.n_iter - len(old)]

        found = expand(spec.model_dump(mode="json")["models"], settings)
        again = {second for _, second in repeated(found)}
        return tuple(each for index, each in enumerate(found) if index not in again)


def drawn_once(spec: SweepSpec, count: int, before: Strategy | None) -> tuple[Candidate, ...]:
    """Draw settings of each model as a random search does; a store that has some keeps them."""
    if before is not None:
        return before.candidates
    search = RandomSpec(strategy="random", n_iter=count, seed=spec.search.seed)
    return Random.draw(spec.model_copy(update={"search": search}))


def _sample(model: Mapping[str, Any], search: RandomSpec) -> list[Params]:
    """Draw ``n_iter`` settings of a model."""
    from sklearn.model_selection import ParameterSampler

    spaces = build_spaces(model["param_distributions"])
    sampler = ParameterSampler(spaces, search.n_iter, random_state=_state(search.seed))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The total space of parameters", UserWarning)
        return [json_like(params) for params in sampler]


def _drawn(before: Strategy) -> dict[str, list[Params]]:
    """Return what was drawn for each model, in order, of what the spec still asks for."""
    found: dict[str, list[Params]] = {}
    for index, model in enumerate(before.spec.model_dump(mode="json")["models"]):
        asked = zip(before.candidates, before.in_spec, strict=True)
        own = (each for each, in_spec in asked if in_spec and each.model == index)
        found.setdefault(_content(model), []).extend(dict(each.params) for each in own)
    return found


def _text(params: Params) -> str:
    """Return a setting so that 1, 1.0 and True differ."""
    return json.dumps(params, sort_keys=True)


def _content(model: Mapping[str, Any]) -> str:
    """Return what decides which settings of a model are drawn, and what they are of."""
    pipeline = model["pipeline"]
    steps = list(pipeline.items()) if isinstance(pipeline, dict) else pipeline
    return json.dumps([model["estimator"], steps, model["param_distributions"]])


def _state(seed: int) -> Any:
    """Return what NumPy's legacy generator takes: 32 bits, or an array of such."""
    return seed if seed < 2**32 else np.random.RandomState([seed % 2**32, seed >> 32])
