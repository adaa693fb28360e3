"""Who is told what an evaluation is about to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hpc_sweep.search.results import Evaluation
    from hpc_sweep.search.tasks import Task


class Watch:
    """Is told, and does nothing: one that guards fits overrides what it needs."""

    def begins(self, tasks: Sequence[Task], results: Sequence[Evaluation]) -> None:
        """Hear which partitions are evaluated now, and where scores go."""

    def fits(self, task: Task, row: int, column: int) -> None:
        """Hear that a candidate is going to be fitted alone and scored on a split."""

    def shares(self) -> None:
        """Hear that a fit begins that several candidates share, or the work between fits."""


NOBODY = Watch()
