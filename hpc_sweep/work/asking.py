"""Searches of partitions, side by side: who asks for the same is answered together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Protocol

from hpc_sweep.partitions import describe
from hpc_sweep.plan import Unit
from hpc_sweep.search import Evaluation, Evaluator, finish
from hpc_sweep.strategies import (
    Counts,
    Found,
    Partition,
    Request,
    Search,
    Unsearchable,
    asked_once,
)
from hpc_sweep.work.bench import Bench
from hpc_sweep.work.remains import NOBODY, Attendant, Remains


class Asked(Partition, Protocol):
    """A partition that is searched, wherever its samples are."""

    def part(self, columns: Sequence[int] | None, counts: Counts | None) -> Any:
        """Return it with some of its splits, as far as it has any here."""


class Answering(Protocol):
    """Answers a request."""

    def evaluate(self, tasks: Any, watch: Any) -> Sequence[Evaluation]:
        """Evaluate the candidates in each partition."""


class Searching:
    """Searches some partitions by the strategy of the sweep.

    Parameters
    ----------
    bench : Bench
        Has the strategy and the evaluators.
    unit : Unit
        Which columns.
    tasks : mapping of int to Task
        The partitions, by their position in the result chunk.
    refusals : mapping of int to mapping of int to str
        By position, why a partition has no splits for a model.
    attendant : Attendant
        Told of each step before it begins.
    remains : Remains, optional
        What is known already; then as little as possible is shared.
    engine : callable, optional
        Gives what answers a request, in place of the bench.
    request : Request, optional
        What is asked of each partition, in place of all that the strategy asks for.
    """

    def __init__(
        self,
        bench: Bench,
        unit: Unit,
        tasks: Mapping[int, Asked],
        refusals: Mapping[int, Mapping[int, str]],
        attendant: Attendant = NOBODY,
        remains: Remains | None = None,
        engine: Callable[[Request], Answering] | None = None,
        request: Request | None = None,
    ) -> None:
        self._bench = bench
        self._unit = unit
        self._tasks = tasks
        self._refusals = refusals
        self._attendant = attendant
        self._remains = remains
        self._engine = engine or bench.evaluator
        self._request = request
        self._searches: dict[int, Search] = {}
        self._asked: dict[Hashable, list[tuple[int, Request]]] = defaultdict(list)
        self._found: dict[int, Found] = {}

    def run(self) -> dict[int, Found]:
        """Return what was found, by position. A partition whose search raises fails alone."""
        first, last = self._unit.first, self._unit.last
        for position, task in self._tasks.items():
            refused = self._refusals[position]
            if refused and not task.counts:
                self._give_up(position, "; ".join(dict.fromkeys(refused.values())))
                continue
            if self._request is None:
                self._searches[position] = self._bench.strategy.search(task, first, last)
            else:
                self._searches[position] = asked_once(self._request)
            self._go_on(position, None)
        number = 0
        while self._asked:
            asked, self._asked = self._asked, defaultdict(list)
            for same in asked.values():
                for (position, request), answer in zip(
                    same, self._answers(number, same), strict=True
                ):
                    _refuse(answer, request, self._refusals[position])
                    self._go_on(position, answer)
            number += 1
        return self._found

    def _go_on(self, position: int, answer: Any) -> None:
        try:
            request = self._searches[position].send(answer)
        except StopIteration as end:
            self._found[position] = end.value
        except Unsearchable as error:
            self._give_up(position, str(error))
        except Exception as error:  # such as a user's sampler
            words = " ".join(str(error).split())
            self._give_up(position, f"the search failed: {type(error).__name__}: {words}")
        else:
            self._asked[request.key].append((position, request))

    def _give_up(self, position: int, reason: str) -> None:
        columns = self._unit.first, self._unit.last
        self._found[position] = self._bench.strategy.nothing(*columns, reason)

    def _answers(self, number: int, same: Sequence[tuple[int, Request]]) -> Sequence[Evaluation]:
        """Evaluate the same candidates in several partitions."""
        candidates = same[0][1].candidates
        evaluator = self._engine(same[0][1])
        asked = [(position, number, request.key) for position, request in same]
        tasks = [
            self._tasks[position].part(request.columns, request.counts)
            for position, request in same
        ]
        self._attendant.asks(asked, candidates)
        if self._remains is None or not isinstance(evaluator, Evaluator):
            return evaluator.evaluate(tasks, self._attendant)
        blank = evaluator.blank(tasks)
        results = [
            self._remains.found.get(each, empty) for each, empty in zip(asked, blank, strict=True)
        ]
        for each, result in zip(asked, results, strict=True):
            self._remains.give_up(each, candidates, result, self._who)
        finish(evaluator, tasks, results, self._attendant, alone=self._remains.alone)
        return results

    def _who(self, position: int) -> str:
        store = self._bench.store
        order = store.grid.reading_order(store.header.chunks, self._unit.chunk)
        return describe(self._bench.labels(order[position]))


def _refuse(answer: Evaluation, request: Request, refused: Mapping[int, str]) -> None:
    """Fail the candidates of models for which a partition has no splits."""
    for row, candidate in enumerate(request.candidates if refused else ()):
        if candidate.model in refused:
            answer.failed[row], answer.messages[row] = True, refused[candidate.model]
