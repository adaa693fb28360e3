"""From names in a spec to scikit-learn objects: estimators, scorers, splitters.

scikit-learn is imported inside the functions, since it takes seconds.
"""

from __future__ import annotations

import importlib
import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from hpc_sweep.errors import Fault, listed, nearest

NON_FINITE = ("inf", "-inf", "nan")
"""How a spec writes the numbers that JSON has not."""

MANY_SAMPLES = 1_000_000
"""Whether a splitter splits more than these is tried with these first."""

Step = str | Mapping[str, Mapping[str, Any] | None]


class NameFault(ValueError):
    """A name that does not lead to what it should; the text is the message."""


def import_object(path: str) -> Any:
    """Return the object at the import path ``package.module.name``.

    Raises
    ------
    NameFault
        When nothing is there; names the nearest thing that is.
    """
    module_name, _, name = path.replace(":", ".").rpartition(".")
    if not module_name:
        raise NameFault(f"'{path}' is no import path such as package.module.Class{_suggest(name)}")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise NameFault(f"'{module_name}' cannot be imported ({error}){_suggest(name)}") from None
    except Exception as error:  # a user's module may raise anything
        reason = f"{type(error).__name__}: {error}"
        raise NameFault(f"importing '{module_name}' failed with {reason}") from None
    if not hasattr(module, name):
        near = nearest(name, [n for n in dir(module) if not n.startswith("_")]) or _suggest(name)
        raise NameFault(f"'{module_name}' has no '{name}'{near}")
    return getattr(module, name)


def _suggest(name: str) -> str:
    """Name the scikit-learn estimator nearest to `name` with its full path."""
    from sklearn.utils import all_estimators

    paths = {
        found: f"{'.'.join(part for part in kind.__module__.split('.') if part[0] != '_')}.{found}"
        for found, kind in all_estimators()
    }
    near = nearest(name, paths)
    for found, path in paths.items():
        if f"'{found}'" in near:
            return near.replace(f"'{found}'", f"'{path}'")
    return ""


def build_estimator(
    estimator: Step | None, pipeline: Sequence[Step] | Mapping[str, Step] | None
) -> Any:
    """Build what a model of the spec describes: one estimator or a pipeline.

    Raises
    ------
    NameFault
        When a path or a constructor parameter is unknown.
    """
    from sklearn.pipeline import Pipeline, make_pipeline

    if pipeline is None:
        if estimator == "passthrough":
            raise NameFault("'passthrough' stands for a step of a pipeline only")
        return _build_step(estimator, last=True)
    last = len(pipeline) - 1
    if isinstance(pipeline, Mapping):
        steps = list(pipeline.items())
        for name in pipeline:
            if "__" in name or name in inspect.signature(Pipeline).parameters:
                raise NameFault(f"'{name}' cannot name a step: it holds __ or is Pipeline's own")
        return Pipeline([(n, _build_step(step, i == last)) for i, (n, step) in enumerate(steps)])
    return make_pipeline(*(_build_step(step, i == last) for i, step in enumerate(pipeline)))


def _build_step(step: Step | None, last: bool) -> Any:
    if step == "passthrough":
        return step
    if isinstance(step, str):
        path, parameters = step, {}
    elif isinstance(step, Mapping):
        ((path, given),) = step.items()
        parameters = dict(given or {})
    else:
        raise NameFault(f"{step!r} is no estimator")
    kind = import_object(path)
    wanted = ("fit", "get_params") if last else ("fit", "get_params", "transform")
    lacking = [name for name in wanted if not hasattr(kind, name)]
    if not inspect.isclass(kind) or lacking:
        lack = f" (it lacks {', '.join(lacking)})" if lacking else ""
        raise NameFault(f"'{path}' is no {'estimator' if last else 'transformer'} class{lack}")
    known = inspect.signature(kind).parameters
    for name in parameters:
        if name not in known and not any(k in known for k in ("kwargs", "params")):
            raise NameFault(_unknown_parameter(name, path, list(known)))
    defaults = {name: known[name].default for name in parameters if name in known}
    try:
        return kind(
            **{n: parameter_value(value, defaults.get(n)) for n, value in parameters.items()}
        )
    except NameFault:
        raise
    except Exception as error:  # a user's class may raise anything
        raise NameFault(f"'{path}' cannot be made: {error}") from None


def parameter_value(value: Any, default: Any = None) -> Any:
    """Turn a spec's parameter value into Python's.

    A mapping of one import path, ``{sklearn.svm.SVR: {C: 10}}``, becomes that estimator,
    ``"inf"``, ``"-inf"`` and ``"nan"``, as JSON has to write them, become numbers, and a
    list becomes a tuple where the parameter's `default` is one (YAML has no tuples), and
    estimators in it are made; all else stays as it is.
    """
    if isinstance(value, str) and value in NON_FINITE:
        return float(value)
    made = _with_estimators(value)
    return tuple(made) if isinstance(made, list) and isinstance(default, tuple) else made


def _with_estimators(value: Any) -> Any:
    """Return a value whose descriptions of estimators are these, in lists of lists too."""
    if isinstance(value, list):
        return [_with_estimators(each) for each in value]
    if isinstance(value, Mapping) and len(value) == 1:
        ((path, parameters),) = value.items()
        if isinstance(path, str) and "." in path and isinstance(parameters, (Mapping, type(None))):
            return _build_step(value, last=True)
    return value


def _unknown_parameter(name: str, owner: str, known: Sequence[str]) -> str:
    near = nearest(name, known)
    return f"'{owner}' has no parameter '{name}'{near or '; it has ' + listed(known)}"


def build_splitter(cv: int | Mapping[str, Any], classifier: bool) -> Any:
    """Build the splitter of ``search.cv``.

    Parameters
    ----------
    cv : int or mapping
        Number of folds (stratified for classifiers, as in scikit-learn), 1: one split into
        train and test, or ``class`` and its parameters.
    classifier : bool
        Whether the estimator is a classifier.
    """
    from sklearn.model_selection import KFold, ShuffleSplit, StratifiedKFold

    if cv == 1:
        return ShuffleSplit(1)
    if isinstance(cv, int):
        return StratifiedKFold(cv) if classifier else KFold(cv)
    path, parameters = cv.get("class"), {k: v for k, v in cv.items() if k != "class"}
    if not isinstance(path, str):
        raise NameFault("a mapping needs class: the splitter's import path")
    kind = import_object(path)
    lacking = [name for name in ("split", "get_n_splits") if not hasattr(kind, name)]
    if not inspect.isclass(kind) or lacking:
        lack = f" (it lacks {', '.join(lacking)})" if lacking else ""
        raise NameFault(f"'{path}' is no splitter class{lack}")
    for name in parameters:
        known = list(inspect.signature(kind).parameters)
        if name not in known:
            raise NameFault(_unknown_parameter(name, path, known))
    try:
        return kind(**parameters)
    except Exception as error:  # a user's class may raise anything
        raise NameFault(f"'{path}' cannot be made: {error}") from None


def made_up(n_samples: int, groups: Any = None) -> tuple[Any, ...]:
    """Return samples without values, as arguments of a splitter; groups only where there are any.

    A user's splitter may not take groups.
    """
    import numpy as np

    more = () if groups is None else (groups,)
    return np.zeros((n_samples, 1)), np.zeros(n_samples, dtype=int), *more


def split_error(splitter: Any, n_samples: int, groups: Any = None) -> ValueError | None:
    """Return what a splitter says of so many samples, or None where it splits them.

    It makes as many indices, so of many it is tried with fewer first.
    """
    error = None
    fewer = min(n_samples, MANY_SAMPLES) if groups is None else n_samples
    for tried in dict.fromkeys((fewer, n_samples)):
        try:
            next(iter(splitter.split(*made_up(tried, groups))))
        except ValueError as raised:
            error = raised
        else:
            return None
    return error


def count_splits(splitter: Any, n_samples: int, groups: Any = None) -> int:
    """Return how many splits `splitter` makes of `n_samples` samples."""
    return int(splitter.get_n_splits(*made_up(n_samples, groups)))


def build_scorers(estimator: Any, scoring: str | Sequence[str] | Mapping[str, str] | None) -> Any:
    """Return scikit-learn's scorer for `scoring`; with several metrics a callable giving a dict.

    A scorer is a scikit-learn name or an import path ``module:function``.
    """
    from sklearn.metrics import check_scoring

    if scoring is None or isinstance(scoring, str):
        found = scoring if scoring is None else _scorer(scoring)
        return check_scoring(estimator, found)
    names = dict(scoring) if isinstance(scoring, Mapping) else {name: name for name in scoring}
    found = {name: _scorer(which) for name, which in names.items()}
    return check_scoring(
        estimator,
        {
            n: each if hasattr(each, "_accept_sample_weight") else Plain(each)
            for n, each in found.items()
        },
        raise_exc=False,
    )


class Plain:
    """A function as one of several scorers: scikit-learn 1.9 asks these whether they take weights.

    Parameters
    ----------
    function : callable
        ``function(estimator, X, y)`` gives a number.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *samples: Any, **weights: Any) -> Any:
        """Return the score of a fitted estimator."""
        return self.function(*samples, **weights)

    def _accept_sample_weight(self) -> bool:
        return "sample_weight" in inspect.signature(self.function).parameters


def _scorer(name: str) -> Any:
    from sklearn.metrics import get_scorer, get_scorer_names

    if ":" in name:
        return import_object(name)
    if name not in get_scorer_names():
        near = nearest(name, get_scorer_names())
        raise NameFault(f"'{name}' is no scorer{near or '; `get_scorer_names()` lists them'}")
    return get_scorer(name)


def is_classifier(estimator: Any) -> bool:
    """Return whether scikit-learn takes `estimator` for a classifier."""
    from sklearn.base import is_classifier as judge

    return bool(judge(estimator))


def is_collective(estimator: Any) -> bool:
    """Return whether `estimator` is one of dask-ml's, which all workers fit together."""
    last = estimator.steps[-1][1] if hasattr(estimator, "steps") else estimator
    return type(last).__module__.partition(".")[0] == "dask_ml"


def needs_target(estimator: Any) -> bool:
    """Return whether `estimator` cannot be fitted without a target; a pipeline, if a step does."""
    from sklearn.pipeline import Pipeline
    from sklearn.utils import get_tags

    if isinstance(estimator, Pipeline):
        return any(needs_target(step) for _, step in estimator.steps if hasattr(step, "fit"))
    return bool(get_tags(estimator).target_tags.required)


def check_model(
    place: str,
    estimator: Step | None,
    pipeline: Sequence[Step] | Mapping[str, Step] | None,
    spaces: Mapping[str, Mapping[str, Any] | Sequence[Mapping[str, Any]]],
) -> Iterable[Fault]:
    """Yield the faults of the model at `place`: unknown estimators, unknown parameters.

    `spaces` are its grids and distributions, by key.
    """
    key = "estimator" if pipeline is None else "pipeline"
    try:
        built = build_estimator(estimator, pipeline)
    except NameFault as fault:
        yield Fault(f"{place}.{key}", str(fault))
        return
    try:
        is_classifier(built)
    except Exception as error:  # a user's class may raise anything
        reason = " ".join(str(error).split())[:200]
        yield Fault(f"{place}.{key}", f"is not what scikit-learn takes for an estimator: {reason}")
        return
    for key, space in spaces.items():
        for grid in [space] if isinstance(space, Mapping) else space:
            yield from _parameter_faults(f"{place}.{key}", built, grid)


def _parameter_faults(place: str, built: Any, grid: Mapping[str, Any]) -> Iterable[Fault]:
    """Yield parameters of a grid that an estimator has not, and values that cannot be made."""
    known = list(built.get_params(deep=True))
    for name in sorted(grid):  # a step before the parameters of what the grid puts there
        path = f"{place}.{name}"
        if name not in known:
            yield Fault(path, _unknown_parameter(name, type(built).__name__, known))
            continue
        for value in () if isinstance(grid[name], Mapping) else grid[name]:
            try:
                put = parameter_value(value)
            except NameFault as fault:
                yield Fault(path, str(fault))
                continue
            if hasattr(put, "get_params"):
                known += [f"{name}__{below}" for below in put.get_params(deep=True)]


def check_search(
    cv: int | Mapping[str, Any],
    scoring: str | Sequence[str] | Mapping[str, str] | None,
    *,
    grouped: bool = False,
) -> Iterable[Fault]:
    """Yield the faults of ``search``: unknown splitters and scorers.

    `grouped` says whether the splitter is given groups.
    """
    try:
        splitter = build_splitter(cv, classifier=False)
    except NameFault as fault:
        yield Fault("search.cv", str(fault))
    else:
        yield from _split_faults(splitter, grouped)
    several = isinstance(scoring, Sequence) and not isinstance(scoring, str)
    names = (
        list(scoring.values())
        if isinstance(scoring, Mapping)
        else list(scoring or ())
        if several
        else [scoring]
    )
    for name in names:
        try:
            if isinstance(name, str):
                _scorer(name)
        except NameFault as fault:
            yield Fault("search.scoring", str(fault))


def _split_faults(splitter: Any, grouped: bool) -> Iterable[Fault]:
    """Yield what a splitter shows on made-up data; too few samples are no fault here."""
    import numpy as np

    kind = type(splitter).__name__
    groups = (np.arange(100) // 4,) if grouped else ()
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            next(iter(splitter.split(np.zeros((100, 1)), np.arange(100) % 2, *groups)), None)
        if any("groups parameter is ignored" in str(each.message) for each in warned):
            yield Fault("search.cv.groups", f"{kind} does not look at groups; leave them out")
    except ValueError as error:
        if "groups" in str(error) and not grouped:
            where = "a coordinate, a variable, or a part of a date such as time.year"
            yield Fault("search.cv", f"{kind} needs groups: name what has them ({where})")
    except Exception as error:  # a user's class may raise anything
        yield Fault("search.cv", f"{kind} cannot split: {type(error).__name__}: {error}")
