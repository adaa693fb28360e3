"""What an act of the drill is, and the table of all acts.

Acts are done before the first command, in the middle of it, or to the finished store. Each
returns what it did, in a few words, ``""`` where there was nothing to do it to. What lasts is
ended through `Sweep.undo`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from sweeps import Sweep

BEFORE, MIDDLE, AFTER = "before", "middle", "after"

Do = Callable[[Sweep, Random], str]


@dataclass(frozen=True)
class Act:
    """One act.

    Attributes
    ----------
    name : str
        What it is called.
    do : callable
        What it does.
    where : tuple of str
        Which sweeps it can be done to.
    when : str
        `BEFORE` the first command, in the `MIDDLE` of one, or `AFTER` the last one.
    prepare : callable
        What has to be done to the sweep before its first command.
    waits : bool
        Whether it needs most of a minute.
    is_possible : callable
        Whether this machine has what it takes.
    """

    name: str
    do: Do
    where: tuple[str, ...]
    when: str
    prepare: Callable[[Sweep], None]
    waits: bool
    is_possible: Callable[[], bool]


TABLE: dict[str, Act] = {}


def act(
    *where: str,
    when: str = MIDDLE,
    prepare: Callable[[Sweep], None] = lambda sweep: None,
    waits: bool = False,
    is_possible: Callable[[], bool] = lambda: True,
) -> Callable[[Do], Do]:
    """Put a function into the table."""

    def add(do: Do) -> Do:
        TABLE[do.__name__] = Act(do.__name__, do, where, when, prepare, waits, is_possible)
        return do

    return add
