"""Candidates: the ordered union of all models' parameter grids."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Candidate:
    """One estimator with one parameter setting.

    Attributes
    ----------
    model : int
        Index of the model in the spec; −1 of one that is not in the spec any more.
    model_name : str
        Its name.
    params : dict
        Parameter values as the spec has them (JSON values).
    id : str
        16 hexadecimal digits made of the content, the same in every run.
    """

    model: int
    model_name: str
    params: Mapping[str, Any]
    id: str

    @property
    def json(self) -> str:
        """The exact content as JSON text."""
        content = {"model": self.model_name, "params": dict(self.params)}
        return json.dumps(content, sort_keys=True)


Model = Mapping[str, Any]


def expand(
    models: Sequence[Model],
    settings_of: Callable[[Model], Iterable[dict[str, Any]]] = lambda model: settings(
        model["param_grid"]
    ),
) -> tuple[Candidate, ...]:
    """Return the candidates of all models in order.

    Parameters
    ----------
    models : sequence of mapping
        Each with ``name`` (or None), ``estimator``, ``pipeline`` and ``param_grid`` as in
        the spec. Within a grid the order is that of scikit-learn's ``ParameterGrid``: names
        sorted, the last one running fastest.
    settings_of : callable, optional
        Gives the parameter settings of a model, in place of those of its grid.
    """
    return tuple(
        Candidate(index, name, params, _digest(model, params))
        for index, (model, name) in enumerate(zip(models, model_names(models), strict=True))
        for params in settings_of(model)
    )


def _digest(model: Model, params: Mapping[str, Any]) -> str:
    """Return the id of a model's candidate."""
    pipeline = model["pipeline"]
    if isinstance(pipeline, Mapping):  # sorting keys must not hide the order of steps
        pipeline = [list(step) for step in pipeline.items()]
    content = {"estimator": model["estimator"], "pipeline": pipeline, "params": params}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def restored(models: Sequence[Model], texts: Iterable[str], ids: Iterable[str]) -> list[Candidate]:
    """Return candidates from what a store has of them.

    Parameters
    ----------
    models : sequence of mapping
        As for `expand`.
    texts, ids : iterable of str
        The `json` and `id` of each.
    """
    names = model_names(models)
    found = []
    for text, digest in zip(texts, ids, strict=True):
        content = json.loads(text)
        own = [i for i, model in enumerate(models) if _digest(model, content["params"]) == digest]
        # several models may have the same content: then the name tells them apart
        named = [i for i in own if names[i] == content["model"]]
        model = next(iter(named or own), -1)
        name = content["model"] if model < 0 else names[model]
        found.append(Candidate(model, name, content["params"], str(digest)))
    return found


def merged(
    stored: Sequence[Candidate], wanted: Sequence[Candidate]
) -> tuple[tuple[Candidate, ...], tuple[int, ...]]:
    """Return the candidates of a store after those of its spec have changed.

    Parameters
    ----------
    stored : sequence of Candidate
        What it has; these keep their positions.
    wanted : sequence of Candidate
        Those of the spec, in any order.

    Returns
    -------
    candidates : tuple of Candidate
        The stored ones, then the new ones in the spec's order.
    dropped : tuple of int
        Positions of those that the spec does not have.
    """
    asked = {candidate.id: candidate for candidate in wanted}
    known = {candidate.id for candidate in stored}
    dropped = tuple(i for i, candidate in enumerate(stored) if candidate.id not in asked)
    kept = [asked.get(candidate.id, replace(candidate, model=-1)) for candidate in stored]
    return (*kept, *(each for each in wanted if each.id not in known)), dropped


def settings(
    param_grid: Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Sequence[Any]]],
) -> Iterator[dict[str, Any]]:
    """Yield the parameter settings of one grid or of a list of grids."""
    for grid in [param_grid] if isinstance(param_grid, Mapping) else param_grid:
        names = sorted(grid)
        for values in itertools.product(*(grid[name] for name in names)):
            yield dict(zip(names, values, strict=True))


def repeated(candidates: Sequence[Candidate]) -> list[tuple[int, int]]:
    """Return pairs of indices of candidates with the same content."""
    first: dict[str, int] = {}
    return [
        (first[candidate.id], index)
        for index, candidate in enumerate(candidates)
        if first.setdefault(candidate.id, index) != index
    ]


def model_names(models: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a distinct name for each model: given, or the last class in lower case."""
    wanted = [model["name"] or _class_name(model) for model in models]
    names: list[str] = []
    for name in wanted:
        number = 1
        unique = name
        while unique in names or (number > 1 and unique in wanted):
            number += 1
            unique = f"{name}-{number}"
        names.append(unique)
    return names


def _class_name(model: Mapping[str, Any]) -> str:
    step = model["estimator"]
    if step is None:
        steps = model["pipeline"]
        step = list(steps.values() if isinstance(steps, Mapping) else steps)[-1]
    path = step if isinstance(step, str) else next(iter(step))
    return str(path).replace(":", ".").rpartition(".")[2].lower()


def parameter_names(candidates: Sequence[Candidate]) -> list[str]:
    """Return all parameter names that any candidate sets, in order of appearance."""
    return list(dict.fromkeys(name for candidate in candidates for name in candidate.params))


def is_numeric(candidates: Sequence[Candidate], name: str) -> bool:
    """Return whether `name` has a number in every candidate."""
    return all(
        isinstance(candidate.params.get(name), (int, float))
        and not isinstance(candidate.params.get(name), bool)
        for candidate in candidates
    )


def value_text(candidate: Candidate, name: str) -> str:
    """Return the value of a parameter as text; ``""`` where it does not apply."""
    return plain_text(candidate.params[name]) if name in candidate.params else ""


def plain_text(value: Any) -> str:
    """Return a parameter's value as text."""
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)
