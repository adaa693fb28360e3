"""Optuna: each partition has a study of its own, which draws what it tries next."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from hpc_sweep.candidates import Candidate, model_names, plain_text
from hpc_sweep.errors import Fault
from hpc_sweep.estimators import NameFault
from hpc_sweep.spec import ModelSpec, OptunaSpec, SearchSpec, SweepSpec
from hpc_sweep.strategies.base import Strategy
from hpc_sweep.strategies.distributions import build, is_discrete
from hpc_sweep.strategies.exchange import NAN, Array, Partition, Request, Search
from hpc_sweep.strategies.samplers import make_sampler, quiet

PROBED = 12
"""Trials of a made-up study: most samplers begin with ten random ones."""


@dataclass(frozen=True)
class Branch:
    """What a trial may choose first: a model and one of its spaces.

    Attributes
    ----------
    model : int
        Index of the model.
    name : str
        Its name.
    space : mapping
        Lists, or distributions of Optuna, by parameter.
    """

    model: int
    name: str
    space: Mapping[str, Any]


class Optuna(Strategy):
    """``n_trials`` trials in each partition, several asked for at once."""

    dim = "trial"
    is_parted = False

    @property
    def _search(self) -> OptunaSpec:
        return cast(OptunaSpec, self.spec.search)

    @classmethod
    def draw(cls, spec: SweepSpec, before: Strategy | None = None) -> tuple[Candidate, ...]:
        """Return nothing: partitions have no candidates in common."""
        return ()

    @classmethod
    def faults(cls, search: SearchSpec, models: Mapping[str, ModelSpec]) -> Iterable[Fault]:
        """Yield what Optuna lacks, and what it cannot draw from or with."""
        try:
            import optuna  # noqa: F401
        except ImportError as error:
            text = f"optuna cannot be imported ({error}); pip install 'hpc-sweep[optuna]'"
            yield Fault("search.strategy", text)
            return
        faults = [*_space_faults(models)]
        if models and not any(space for model in models.values() for space in _spaces(model)):
            place = f"{next(iter(models))}.param_distributions"
            faults.append(Fault(place, "is empty: there is nothing to choose"))
        yield from faults
        try:
            sampler = make_sampler(cast(OptunaSpec, search), seed=0)
            if models and not faults:
                _probe(sampler, _branches(models.values()))
        except NameFault as fault:
            yield Fault("search.sampler", str(fault))

    # what it leaves

    @property
    def n_rows(self) -> int:
        """How many trials."""
        return self._search.n_trials

    def models(self, first: int, last: int) -> list[int]:
        """Return all models: any may be chosen."""
        return list(range(len(self.spec.models)))

    def by_model(self) -> str:
        """Return the models that trials choose from."""
        return ", ".join(self.model_names)

    @functools.cached_property
    def _categories(self) -> dict[str, list[Any] | None]:
        """By parameter: the values that codes stand for; None: it has numbers."""
        return _categories(self.spec.models)

    @property
    def parameters(self) -> dict[str, tuple[str, Any]]:
        """Numbers, or the text of a category."""
        return {
            name: ("float64", NAN) if values is None else ("str", "")
            for name, values in self._categories.items()
        }

    @property
    def arrays(self) -> tuple[Array, ...]:
        """Model and parameters of each trial."""
        arrays = [_coded("model", "model of each trial", self.model_names)]
        for name, values in self._categories.items():
            title = f"parameter {name} of each trial"
            if values is None:
                about = {"long_name": title, "comment": "NaN: pending, or does not apply"}
                arrays.append(
                    Array(f"param_{name}", ("trial",), "float64", NAN, about, is_found=True)
                )
            else:
                arrays.append(_coded(f"param_{name}", title, values))
        return tuple(arrays)

    # what it does

    @functools.cached_property
    def _branches(self) -> list[Branch]:
        return _branches(self.spec.models)

    def search(self, partition: Partition, first: int, last: int) -> Search:
        """Ask the study for some trials, have them evaluated, tell it; again."""
        with quiet() as optuna:
            sampler = make_sampler(self._search, partition.seed)
            study = optuna.create_study(direction="maximize", sampler=sampler)
        found = self.nothing(0, 1, n_splits=max(map(len, partition.counts.values()), default=0))
        more = {array.name: np.full(self.n_rows, array.fill) for array in self.arrays}
        messages, states = cast(list[str], found.messages), cast(dict[int, int], found.states)
        for start in range(0, self.n_rows, self._search.trials_at_once):
            rows = range(start, min(start + self._search.trials_at_once, self.n_rows))
            with quiet():
                trials = [study.ask() for _ in rows]
                candidates = [_suggested(trial, self._branches) for trial in trials]
            for row, candidate in zip(rows, candidates, strict=True):
                self._note(candidate, row, more)
            answer = yield Request(tuple(each.json for each in candidates), candidates)
            where = slice(rows.start, rows.stop)
            for metric, scores in answer.scores.items():
                found.scores[metric][where] = scores
            found.fit_time[where], found.score_time[where] = answer.fit_time, answer.score_time
            found.failed[where], messages[where] = answer.failed, answer.messages
            states.update({rows[number]: state for number, state in answer.states.items()})
            means = np.average(answer.scores[self.spec.refit_metric], axis=1)
            with quiet():
                for trial, mean in zip(trials, means.tolist(), strict=True):
                    failed = optuna.trial.TrialState.FAIL if np.isnan(mean) else None
                    study.tell(trial, None if failed else mean, state=failed)
        return replace(found, more=more)

    def _note(self, candidate: Candidate, row: int, more: Mapping[str, NDArray[Any]]) -> None:
        more["model"][row] = candidate.model
        for name, value in candidate.params.items():
            values = self._categories[name]
            more[f"param_{name}"][row] = value if values is None else _position(values, value)

    # what is made of it

    def best(
        self, values: Mapping[str, NDArray[Any]], index: NDArray[np.int64]
    ) -> dict[str, NDArray[Any]]:
        """Return model and parameters of the best trials."""

        def at_best(name: str) -> NDArray[Any]:
            return values[name][np.arange(len(index)), index]

        found = {"best_model": _texts(self.model_names, np.where(index >= 0, at_best("model"), -1))}
        for name, categories in self._categories.items():
            drawn = at_best(f"param_{name}")
            found[f"best_param_{name}"] = (
                np.where(index >= 0, drawn, NAN)
                if categories is None
                else _texts(categories, np.where(index >= 0, drawn, -1))
            )
        return found

    def candidate(self, at: Callable[[str], Any], row: int) -> Candidate:
        """Return the candidate of a trial, with exact values."""
        model = int(at("model")[row])
        params = {}
        for name, categories in sorted(self._categories.items()):
            value = at(f"param_{name}")[row].item()
            if categories is None and not np.isnan(value):
                params[name] = self._exact(model, name, value)
            elif categories is not None and value >= 0:
                params[name] = categories[value]
        return Candidate(model, self.model_names[model], params, "")

    def _exact(self, model: int, name: str, value: float) -> int | float:
        """Return a number as it was drawn: arrays have none but floats."""
        drawn = [space[name] for space in _spaces(self.spec.models[model]) if name in space]
        for values in drawn:
            if isinstance(values, list) and value in values:
                return cast(float, values[values.index(value)])
        discrete = any(isinstance(values, Mapping) and is_discrete(values) for values in drawn)
        return int(value) if discrete else value


def _spaces(model: ModelSpec) -> list[dict[str, Any]]:
    given = model.param_distributions
    return list(given) if isinstance(given, list) else [given]


def _branches(models: Iterable[ModelSpec]) -> list[Branch]:
    listed_models = list(models)
    names = model_names([model.model_dump() for model in listed_models])
    return [
        Branch(index, names[index], {name: _optunas(values) for name, values in space.items()})
        for index, model in enumerate(listed_models)
        for space in _spaces(model)
    ]


def _suggested(trial: Any, branches: Sequence[Branch]) -> Candidate:
    """Let a trial choose a branch, and values in it."""
    chosen = 0
    if len(branches) > 1:
        chosen = trial.suggest_categorical("branch", tuple(range(len(branches))))
    branch = branches[chosen]
    params = {}
    for name, values in sorted(branch.space.items()):
        label = name if len(branches) == 1 else f"{chosen}.{name}"
        if isinstance(values, list):
            params[name] = values[trial.suggest_categorical(label, tuple(range(len(values))))]
            continue
        suggest = trial.suggest_int if isinstance(values.low, int) else trial.suggest_float
        params[name] = suggest(label, values.low, values.high, step=values.step, log=values.log)
    return Candidate(branch.model, branch.name, params, "")


def _optunas(values: Any) -> Any:
    """Return a list as it is, and a distribution as Optuna's.

    Raises
    ------
    NameFault
        When Optuna has nothing like it.
    """
    from optuna import distributions

    made = build(values)
    if isinstance(made, (list, distributions.FloatDistribution, distributions.IntDistribution)):
        return made
    kind = getattr(getattr(made, "dist", None), "name", type(made).__name__)
    try:
        low, high = made.support()
        if not low <= high:  # of wrong arguments SciPy says NaN
            raise NameFault(f"{values} has no lower and upper end")
        if kind in ("loguniform", "reciprocal"):
            if made.kwds.get("loc", made.args[2:3] or 0) not in (0, (0,)):
                raise NameFault("a loguniform with loc is none that Optuna has; leave loc out")
            return distributions.FloatDistribution(float(low), float(high), log=True)
        if kind == "uniform":
            return distributions.FloatDistribution(float(low), float(high))
        if kind == "randint":
            return distributions.IntDistribution(int(low), int(high))
    except (ValueError, TypeError, OverflowError, AttributeError) as error:
        raise NameFault(f"{values} is none that Optuna has: {error}") from None
    raise NameFault(
        f"{next(iter(values))} is none that Optuna has; use scipy.stats.loguniform, uniform or "
        "randint, optuna.distributions.FloatDistribution or IntDistribution, or a list"
    )


def _space_faults(models: Mapping[str, ModelSpec]) -> Iterator[Fault]:
    kinds: dict[str, str] = {}
    for place, model in models.items():
        for space in _spaces(model):
            for name, values in space.items():
                path = f"{place}.param_distributions.{name}"
                try:
                    _optunas(values)
                except NameFault as fault:
                    yield Fault(path, str(fault))
                kind = "numbers" if _has_numbers(values) else "other values"
                if kinds.setdefault(name, kind) != kind:
                    text = f"has {kind} here and {kinds[name]} elsewhere: one array holds both"
                    yield Fault(path, f"{text}; name two sweeps")


def _has_numbers(values: Any) -> bool:
    return isinstance(values, Mapping) or all(
        isinstance(value, (int, float)) and not isinstance(value, bool) for value in values
    )


def _categories(models: Sequence[ModelSpec]) -> dict[str, list[Any] | None]:
    found: dict[str, list[Any] | None] = {}
    for model in models:
        for space in _spaces(model):
            for name, values in space.items():
                if _has_numbers(values):
                    found[name] = None
                    continue
                known = cast(list[Any], found.setdefault(name, []))
                for value in values:
                    if _position(known, value) < 0:
                        known.append(value)
    return found


def _position(values: Sequence[Any], value: Any) -> int:
    """Return the index of the very same JSON value, or −1: ``1 == True`` in Python."""
    texts = [json.dumps(each, sort_keys=True) for each in values]
    text = json.dumps(value, sort_keys=True)
    return texts.index(text) if text in texts else -1


def _coded(name: str, title: str, values: Sequence[Any]) -> Array:
    """Return an array of codes; CF's meanings are single words."""
    words = [re.sub(r"[^\w.+@-]+", "_", plain_text(value)).strip("_") or "_" for value in values]
    attributes = {
        "long_name": title,
        "comment": "-1: pending, or does not apply",
        "flag_values": list(range(len(values))),
        "flag_meanings": " ".join(words),
        "categories": json.dumps(list(values)),
    }
    return Array(name, ("trial",), "int16", -1, attributes, is_found=True)


def _texts(values: Sequence[Any], codes: NDArray[Any]) -> NDArray[Any]:
    texts: NDArray[Any] = np.array([*map(plain_text, values), ""], dtype=object)
    return np.asarray(texts[codes.astype(int)])


def _probe(sampler: Any, branches: Sequence[Branch]) -> None:
    """Run a made-up study.

    Raises
    ------
    NameFault
        With what the sampler raises: it lacks a library, or cannot draw from this space.
    """
    try:
        with quiet() as optuna:
            study = optuna.create_study(direction="maximize", sampler=sampler)
            for number in range(PROBED):
                trial = study.ask()
                _suggested(trial, branches)
                study.tell(trial, float(number % 5))
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise NameFault(f"{type(sampler).__name__} cannot search here: {reason}") from None
