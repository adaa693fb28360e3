"""What the driver's loop asks of others: to do work, and to know what is done."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from distributed import Client

from hpc_sweep.plan import Chunk, Unit
from hpc_sweep.store import Folded, PartName


class Tasks(Protocol):
    """What is done on workers; what is submitted is a `distributed.Future`, or looks like one."""

    @property
    def guards(self) -> bool:
        """Whether a unit's fits can be done in a process of their own."""

    def evaluate(self, client: Client, unit: Unit, *, guarded: bool) -> Any:
        """Submit a unit, with fits in a process of their own or not; gives a `Receipt`."""

    def score(self, client: Client, unit: Unit, parts: list[PartName], *, guarded: bool) -> Any:
        """Submit a unit without candidates: the best ones, by these parts; gives a `Receipt`."""

    def begun(self, client: Client) -> set[Any]:
        """Return the keys of what is at work."""

    def fold(self, client: Client, chunk: Chunk, parts: list[PartName]) -> Any:
        """Submit a fold; gives a `Folded`."""

    def step(self) -> str:
        """Return what the driver itself is at in a unit, or ``""``."""


class Done(Protocol):
    """What is done: the ledger, or what knows of a pass before the first unit."""

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left."""

    @property
    def parts(self) -> Mapping[Chunk, list[PartName]]:
        """What a fold is made of."""

    def complete(self) -> Iterable[Chunk]:
        """Return chunks that can be folded."""

    def add(self, name: PartName) -> bool:
        """Add what a task left; return whether its chunk can be folded now."""

    def fold(self, chunk: Chunk, folded: Folded, most: int = 1) -> Sequence[Unit]:
        """Note that a chunk was folded, or return units that it lacks."""
