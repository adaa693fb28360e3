"""The process in which guarded fits are done: it evaluates units, and tells what it does.

It answers each request with batches of outcomes, with what it has of a batch that takes long,
and at last with `Finished`, or what was raised.
"""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from hpc_sweep import strategies
from hpc_sweep.candidates import Candidate
from hpc_sweep.plan import Unit
from hpc_sweep.processes import end_with_parent
from hpc_sweep.search import Evaluation, Task
from hpc_sweep.store import Choice
from hpc_sweep.work.bench import current_bench
from hpc_sweep.work.evaluation import Partition, evaluate_partitions
from hpc_sweep.work.outcomes import Outcome
from hpc_sweep.work.place import FITS, READS, REFITS, SHARES, SPLITS, STARTS, Board
from hpc_sweep.work.remains import Asked, Attendant, Remains, token

SAVE_S = 1.0
"""What is found in a batch that takes longer is not lost when the process dies."""


@dataclass(frozen=True)
class Request:
    """What to evaluate: see `evaluate_partitions`; of time, how many seconds are left."""

    store: str
    spec: str
    unit: Unit
    seconds: float
    batch_s: float
    remains: Remains
    choices: Mapping[int, Choice] | None = None
    revision: int = 0
    kept: Sequence[Partition] = ()
    asked: strategies.Request | None = None


@dataclass(frozen=True)
class Batch:
    """Partitions that are finished."""

    outcomes: list[Outcome]


@dataclass(frozen=True)
class Saved:
    """What there is of partitions that are not finished."""

    found: Mapping[Asked, Evaluation]


@dataclass(frozen=True)
class Finished:
    """The request is answered: by the partitions that came, or by an exception."""

    error: Exception | None = None


class Reporter(Attendant):
    """Notes each step on the board, and sends what is found where that takes long."""

    def __init__(self, board: Board, connection: Connection) -> None:
        self._board = board
        self._connection = connection
        self._first = self._count = 0
        self._asked: dict[int, Asked] = {}
        self._asking: Sequence[Asked] = ()
        self._tokens: list[int] = []
        self._found: dict[Asked, Evaluation] = {}
        self._saved = 0.0

    def reads(self, position: int, count: int) -> None:
        """Note a reading."""
        self._board.write(READS, position, count)

    def splits(self, position: int) -> None:
        """Note a splitting."""
        self._board.write(SPLITS, position, 1)

    def takes(self, first: int, count: int) -> None:
        """Begin to save what is found of these partitions."""
        self._first, self._count, self._found = first, count, {}
        self._saved = time.monotonic()

    def asks(self, asked: Sequence[Asked], candidates: Sequence[Candidate]) -> None:
        """Remember what fits are of."""
        self._asking = asked
        self._tokens = [token(candidate) for candidate in candidates]

    def begins(self, tasks: Sequence[Task], results: Sequence[Evaluation]) -> None:
        """Remember where scores go."""
        self._asked = {id(task): each for task, each in zip(tasks, self._asking, strict=True)}
        self._found.update(zip(self._asking, results, strict=True))

    def fits(self, task: Task, row: int, column: int) -> None:
        """Note a fit."""
        self._save()
        position, number, _ = self._asked[id(task)]
        self._board.write(FITS, position, 1, self._count, number, self._tokens[row], column)

    def refits(self, position: int) -> None:
        """Note a refit."""
        self._save()
        self._board.write(REFITS, position, 1, self._count)

    def shares(self) -> None:
        """Note a shared fit, or the work between fits."""
        self._save()
        self._board.write(SHARES, self._first, self._count, self._count)

    def _save(self) -> None:
        now = time.monotonic()
        if now - self._saved > SAVE_S:
            self._saved = now
            self._connection.send(Saved(self._found))


def serve(connection: Connection, memory: Any, environment: Mapping[str, str]) -> None:
    """Answer requests until the process at the other end is gone.

    Parameters
    ----------
    connection : Connection
        To that process.
    memory : ctypes array
        Of the board.
    environment : mapping
        That process's; the fork server has that of its start.
    """
    end_with_parent()
    os.environ.update(environment)
    np.random.seed()  # its state is what all forks of one server have in common
    board = Board(memory)
    while True:
        try:
            request = connection.recv()
        except EOFError:
            return
        try:
            _answer(request, Reporter(board, connection), connection)
            finished = Finished()
        except Exception as error:
            finished = Finished(_sendable(error))
        board.write(STARTS)
        connection.send(finished)


def _answer(request: Request, reporter: Reporter, connection: Connection) -> None:
    until = time.perf_counter() + request.seconds
    for outcomes in evaluate_partitions(
        current_bench(request.store, request.spec, request.revision),
        request.unit,
        until,
        batch_s=request.batch_s,
        attendant=reporter,
        remains=request.remains,
        choices=request.choices,
        kept=request.kept,
        request=request.asked,
    ):
        connection.send(Batch(outcomes))


def _sendable(error: Exception) -> Exception:
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
