"""Candidates and splits of one partition, cut into slices that workers evaluate apart."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hpc_sweep.search.rules import Rule

if TYPE_CHECKING:
    from hpc_sweep.search.evaluator import Evaluator


@dataclass(frozen=True)
class Slice:
    """Some candidates on some splits.

    Attributes
    ----------
    rows : tuple of int
        Which candidates.
    columns : tuple of int
        Which splits, ascending and without a gap.
    """

    rows: tuple[int, ...]
    columns: tuple[int, ...]


def slices_of(evaluator: Evaluator, n_splits: int, wanted: int) -> list[Slice]:
    """Cut candidates × splits into about as many slices as are wanted.

    Splits are cut first: there nothing is shared. Candidates are cut only where splits are too
    few, and not among those that share their work. What a rule solves for all splits at once
    stays whole.

    Parameters
    ----------
    evaluator : Evaluator
        Has the candidates.
    n_splits : int
        How many splits.
    wanted : int
        How many slices, at the least where there is enough to cut.
    """
    if wanted <= 1:
        return [Slice(tuple(range(len(evaluator.settings))), tuple(range(n_splits)))]
    whole: list[Slice] = []
    single: list[list[int]] = []
    for rule, rows in working_together(evaluator):
        if rule is not None and type(rule).evaluate is not Rule.evaluate:
            whole.append(Slice(tuple(rows), tuple(range(n_splits))))
        else:
            single.append(rows)
    columns = list(_cut(range(n_splits), min(wanted, n_splits)))
    groups = _cut(single, min(len(single), -(-wanted // max(1, n_splits))))
    pieces = [tuple(sorted(itertools.chain.from_iterable(group))) for group in groups]
    return whole + [Slice(rows, tuple(some)) for some in columns for rows in pieces]


def left_of(slices: Sequence[Slice], known: Iterable[Slice]) -> Iterator[Slice]:
    """Yield what of slices is not in those that are known."""
    cells = {cell for each in known for cell in itertools.product(each.rows, each.columns)}
    for each in slices:
        left = [cell for cell in itertools.product(each.rows, each.columns) if cell not in cells]
        rows, columns = ({*places} for places in zip(*left, strict=True)) if left else ((), ())
        if rows:
            span = range(min(columns), max(columns) + 1)
            yield Slice(tuple(sorted(rows)), tuple(span))


def working_together(evaluator: Evaluator) -> Iterator[tuple[Rule | None, list[int]]]:
    """Yield candidates that cost about as much as one of them, and the rule that they share by."""
    for rule, rows in evaluator.groups:
        together: dict[Hashable, list[int]] = {}
        for row in rows:
            common = None if rule is None else rule.together(evaluator.template(row))
            together.setdefault(row if common is None else (common,), []).append(row)
        yield from ((rule, members) for members in together.values())


def _cut(values: Sequence[Any], count: int) -> Iterator[Sequence[Any]]:
    """Yield so many pieces, whose lengths differ by one at the most."""
    edges = [len(values) * number // max(1, count) for number in range(count + 1)]
    yield from (values[first:last] for first, last in itertools.pairwise(edges))
