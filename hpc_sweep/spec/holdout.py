"""``data.holdout``: which samples no search sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator

from hpc_sweep.errors import listed

MASK, REVERSE = "mask", "reverse"


@dataclass(frozen=True)
class Holdout:
    """Which samples are held out.

    Attributes
    ----------
    name : str
        What is looked at: a coordinate, a variable, or a part of a date (``time.year``).
    start : int, float, str or None
        Samples from here on are held out; None where `values` are, or where `name` is a mask that
        says which are.
    reverse : bool
        Hold out the other samples.
    values : tuple of int, float or str
        Samples with one of these are held out.
    """

    name: str
    start: int | float | str | None
    reverse: bool
    values: tuple[int | float | str, ...] = ()

    def __str__(self) -> str:
        if self.values:
            return f"{self.name} {'other than' if self.reverse else 'of'} {listed(self.values)}"
        if self.start is None:
            return f"where {self.name} is {'false' if self.reverse else 'true'}"
        return f"{self.name} {'before' if self.reverse else 'from'} {self.start}"


def holdout_of(value: dict[str, Any]) -> Holdout:
    """Return what ``data.holdout`` says.

    Raises
    ------
    ValueError
        When it is none of ``{name: first value held out}``, ``{name: [values held out]}`` and
        ``{mask: name}``.
    """
    named = {name: start for name, start in value.items() if name != REVERSE}
    reverse = value.get(REVERSE, False)
    if len(named) != 1:
        raise ValueError(
            'write {time: "2019-03-25"} (from then on), {time.year: [2017, 2019]} (these values), '
            "or {mask: name of a boolean variable}, and reverse: true for the other way round"
        )
    if not isinstance(reverse, bool):
        raise ValueError(f"{REVERSE} is true or false")
    ((name, start),) = named.items()
    if name == MASK:
        if not isinstance(start, str):
            raise ValueError("mask names a boolean variable")
        return Holdout(start, None, reverse)
    values = tuple(start) if isinstance(start, list) else (start,)
    if not values or not all(map(_is_value, values)):
        raise ValueError(
            f"{name} needs the first value that is held out, a number or a date, or a list of "
            "those that are"
        )
    if isinstance(start, list):
        return Holdout(name, None, reverse, values)
    return Holdout(name, start, reverse)


def _is_value(value: object) -> bool:
    return isinstance(value, (int, float, str)) and not isinstance(value, bool)


def _checked(value: dict[str, Any]) -> dict[str, Any]:
    holdout_of(value)
    return value


HoldoutWords = Annotated[dict[str, Any], AfterValidator(_checked)]
