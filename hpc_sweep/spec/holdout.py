"""``data.holdout``: which samples no search sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator

MASK, REVERSE = "mask", "reverse"


@dataclass(frozen=True)
class Holdout:
    """Which samples are held out.

    Attributes
    ----------
    name : str
        What is looked at: a coordinate, a variable, or a part of a date (``time.year``).
    start : int, float, str or None
        Samples from here on are held out; None where `name` is a mask that says which are.
    reverse : bool
        Hold out the other samples.
    """

    name: str
    start: int | float | str | None
    reverse: bool

    def __str__(self) -> str:
        if self.start is None:
            return f"where {self.name} is {'false' if self.reverse else 'true'}"
        return f"{self.name} {'before' if self.reverse else 'from'} {self.start}"


def holdout_of(value: dict[str, Any]) -> Holdout:
    """Return what ``data.holdout`` says.

    Raises
    ------
    ValueError
        When it is neither ``{name: first value held out}`` nor ``{mask: name}``.
    """
    named = {name: start for name, start in value.items() if name != REVERSE}
    reverse = value.get(REVERSE, False)
    if len(named) != 1:
        raise ValueError(
            'write {time: "2019-03-25"} (from then on), or {mask: name of a boolean variable}, and '
            "reverse: true for the other way round"
        )
    if not isinstance(reverse, bool):
        raise ValueError(f"{REVERSE} is true or false")
    ((name, start),) = named.items()
    if name == MASK:
        if not isinstance(start, str):
            raise ValueError("mask names a boolean variable")
        return Holdout(start, None, reverse)
    if isinstance(start, bool) or not isinstance(start, (int, float, str)):
        raise ValueError(f"{name} needs the first value that is held out: a number or a date")
    return Holdout(name, start, reverse)


def _checked(value: dict[str, Any]) -> dict[str, Any]:
    holdout_of(value)
    return value


HoldoutWords = Annotated[dict[str, Any], AfterValidator(_checked)]
