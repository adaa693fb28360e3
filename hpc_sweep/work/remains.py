"""What is told while partitions are evaluated, and what is left when that was ended."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

from hpc_sweep.candidates import Candidate
from hpc_sweep.search import Evaluation, Watch

Asked = tuple[int, int, Hashable]
"""Position of a partition in its result chunk, number of the request, key of the request."""


def token(candidate: Candidate) -> int:
    """Return 64 bits made of what a candidate is."""
    return int.from_bytes(hashlib.blake2b(candidate.json.encode(), digest_size=8).digest())


@dataclass(frozen=True)
class Loss:
    """Why something has no result.

    Attributes
    ----------
    status : int
        As in the store.
    reason : str
        The message.
    column : int or None
        The split that it was lost at, if one it was.
    """

    status: int
    reason: str
    column: int | None = None


@dataclass
class Remains:
    """What is known of a unit in which fits were ended.

    Attributes
    ----------
    one_by_one : int
        So many partitions come first that are evaluated together, candidate by candidate.
    alone : bool
        Whether nothing at all is shared in them, since shared work was ended twice.
    found : dict of Asked to Evaluation
        What they have already.
    partitions : dict of int to Loss
        By position, partitions that are given up.
    candidates : dict of (int, int, int) to Loss
        By position, number of the request and `token`, candidates that are given up.
    refits : dict of int to Loss
        By position, refits of the best candidate that are given up.
    """

    one_by_one: int = 0
    alone: bool = False
    found: dict[Asked, Evaluation] = field(default_factory=dict)
    partitions: dict[int, Loss] = field(default_factory=dict)
    candidates: dict[tuple[int, int, int], Loss] = field(default_factory=dict)
    refits: dict[int, Loss] = field(default_factory=dict)

    def give_up(
        self,
        asked: Asked,
        candidates: Sequence[Candidate],
        found: Evaluation,
        who: Callable[[int], str],
    ) -> None:
        """Fail those of a request's candidates that are given up in a partition.

        Parameters
        ----------
        asked : Asked
            Where.
        candidates : sequence of Candidate
            Those of the request.
        found : Evaluation
            What there is of them.
        who : callable
            Gives the name of a partition, by its position.
        """
        position, number, _ = asked
        for row, candidate in enumerate(candidates if self.candidates else ()):
            loss = self.candidates.get((position, number, token(candidate)))
            if loss is not None:
                found.failed[row], found.states[row] = True, loss.status
                where = "" if loss.column is None else f"{found.name(loss.column)} "
                found.messages[row] = f"{who(position)}: {candidate.json}, {where}{loss.reason}"
                found.ended.add(row)
                found.forget(row)  # what it had may not have been saved


class Attendant(Watch):
    """Is told what is going to be done for partitions, and where they are."""

    def reads(self, position: int, count: int) -> None:
        """Hear that partitions are going to be read, or the arrays of the first one made."""

    def splits(self, position: int) -> None:
        """Hear that the splits of a partition are going to be made."""

    def refits(self, position: int) -> None:
        """Hear that the best candidate of a partition is going to be fitted again."""

    def takes(self, first: int, count: int) -> None:
        """Hear that so many partitions come next, from the first one on."""

    def asks(self, asked: Sequence[Asked], candidates: Sequence[Candidate]) -> None:
        """Hear what is asked of which partitions; `begins` follows."""


NOBODY = Attendant()
