"""Pipelines with the same first steps fit and apply these once for each split."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import joblib
from sklearn.pipeline import Pipeline

from hpc_sweep.search.copies import identity, leaves_input, own
from hpc_sweep.search.rules.base import Data, Fitted, Rule

Member = tuple[int, Sequence[Any]]
"""Position of a pipeline, and its steps."""


@dataclass(frozen=True)
class Reached:
    """What the members of a group have in common after some steps; times are a member's share.

    What fits warned of is told; that transforming the test samples did, or wrote into them, only
    that it is so.
    """

    data: Data
    steps: tuple[Any, ...] = ()
    seconds: float = 0.0
    score_seconds: float = 0.0
    warned: tuple[str, ...] = ()
    scores_act: bool = False


class Prefixes(Rule):
    """Shares the first steps of pipelines, and what rules share of the steps themselves.

    Parameters
    ----------
    rules : sequence of Rule
        For single steps, transformers and last ones.
    """

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = rules

    def matches(self, estimator: Any) -> Hashable | None:
        """Return the names of the steps, and what the first one may be shared by."""
        if type(estimator) is not Pipeline or estimator.memory is not None or estimator.verbose:
            return None
        if len(estimator.steps) < 2 or estimator.transform_input is not None:
            return None
        names = tuple(name for name, _ in estimator.steps)
        return (names, self._family(estimator.steps[0][1]))

    def together(self, estimator: Any) -> Hashable | None:
        """Return all first steps, and what the last one may be shared by: that costs most."""
        if self.matches(estimator) is None:
            return None
        *first, last = (step for _, step in estimator.steps)
        family = self._family(last)
        return None if family[0] is None else (*map(identity, first), family)

    def fitted(self, estimators: Sequence[Any], data: Data) -> Iterator[Fitted]:
        """Yield pipelines' last steps, fitted, with the test samples as they see them."""
        members = [(i, [step for _, step in each.steps]) for i, each in enumerate(estimators)]
        yield from self._walk(members, 0, Reached(data))

    def _family(self, step: Any) -> tuple[int | None, Hashable]:
        """Return what steps have in common that one fit, or one rule, serves."""
        for index, rule in enumerate(self._rules):
            key = rule.matches(step)
            if key is not None:
                return (index, key)
        return (None, identity(step))

    def _walk(self, members: Sequence[Member], depth: int, reached: Reached) -> Iterator[Fitted]:
        is_last = depth == len(members[0][1]) - 1
        same: dict[Hashable, list[Member]] = defaultdict(list)
        for member in members:
            same[member[0] if is_last else identity(member[1][depth])].append(member)
        groups = list(same.values())
        steps = [group[0][1][depth] for group in groups]
        data = _of_step(reached.data, is_last=is_last)
        for found in self._fits(steps, data, transform=not is_last):
            group = groups[found.position]
            share = len(group)
            warned = (*reached.warned, *(found.warned or ()))
            seconds = reached.seconds + found.seconds / share
            if is_last:
                yield replace(
                    found,
                    position=group[0][0],
                    seconds=seconds,
                    score_seconds=reached.score_seconds + found.score_seconds / share,
                    steps=reached.steps,
                    X_test=None if reached.scores_act else reached.data.X_test,
                    warned=warned,
                )
                continue
            start = len(reached.data.warned)
            begin = time.perf_counter()
            try:
                data, writes = _transformed(reached.data, found)
            except Exception:  # noqa: S112, its candidates are fitted alone, and say why
                continue
            spent = (time.perf_counter() - begin) / share
            after = Reached(
                data,
                (*reached.steps, found.estimator),
                seconds,
                reached.score_seconds + spent,
                warned,
                reached.scores_act or writes or len(data.warned) > start,
            )
            yield from self._walk(group, depth + 1, after)

    def _fits(self, steps: Sequence[Any], data: Data, transform: bool) -> Iterator[Fitted]:
        """Yield steps, fitted, by rules where these apply; those that fail are left out."""
        families: dict[tuple[int | None, Hashable], list[int]] = defaultdict(list)
        for position, step in enumerate(steps):
            families[self._family(step)].append(position)
        for (index, _), positions in families.items():
            rule = None if index is None else self._rules[index]
            left = set(positions)
            if rule is not None and len(positions) >= rule.least:
                found = rule.fitted([steps[p] for p in positions], data)
                try:
                    for fitted in found:
                        left.discard(positions[fitted.position])
                        yield replace(fitted, position=positions[fitted.position])
                except Exception:  # noqa: S112, what is left fails again alone, and says why
                    continue
            for position in sorted(left):
                fitted_alone = _fit(steps[position], position, data, transform)
                if fitted_alone is not None:
                    yield fitted_alone


def _fit(step: Any, position: int, data: Data, transform: bool) -> Fitted | None:
    if step is None or isinstance(step, str):  # passthrough
        return Fitted(position, step, 0.0, transformed=data.X_train, warned=())
    given = data if leaves_input(step) else _own_training(data)
    start = len(data.warned)
    before = joblib.hash(given.y_train) if transform and given is not data else None
    begin = time.perf_counter()
    transformed = None
    try:
        if not transform:
            given.fit(step)
        elif hasattr(step, "fit_transform"):
            transformed = step.fit_transform(given.X_train, given.y_train)
        else:
            transformed = step.fit(given.X_train, given.y_train).transform(given.X_train)
    except Exception:
        return None
    seconds = time.perf_counter() - begin
    if before is not None and joblib.hash(given.y_train) != before:
        return None  # the steps behind it see another target than other candidates'
    return Fitted(
        position, step, seconds, transformed=transformed, warned=tuple(data.warned[start:])
    )


def _of_step(data: Data, *, is_last: bool) -> Data:
    """Return the split as a step's fit takes it: sample weights go to the last one."""
    if data.weights is None:
        return data
    return replace(data, weights=data.weights.of_last_step() if is_last else None)


def _own_training(data: Data) -> Data:
    """Return a split whose training samples a step may write into."""
    weights = data.weights and replace(data.weights, train=own(data.weights.train))
    y_train = None if data.y_train is None else own(data.y_train)
    return replace(data, X_train=own(data.X_train), y_train=y_train, weights=weights)


def _transformed(data: Data, found: Fitted) -> tuple[Data, bool]:
    """Return the split as the next step sees it, and whether transforming wrote into samples."""
    step = found.estimator
    if step is None or isinstance(step, str):
        return data, False
    X_test, before = data.X_test, None
    if not leaves_input(step):
        X_test = own(X_test)
        before = joblib.hash(X_test)
    transformed = step.transform(X_test)
    writes = before is not None and joblib.hash(X_test) != before
    return replace(data, X_train=found.transformed, X_test=transformed), writes
