"""``data.partition_by``: along what the data is cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, BeforeValidator, Field

from hpc_sweep.spec.section import Section
from hpc_sweep.spec.words import Name

Edge = int | float | Name


class BinsSpec(Section):
    """Bins of the values of a coordinate or variable."""

    bins: Annotated[int, Field(ge=1)] | Annotated[list[Edge], Field(min_length=2)] = Field(
        description="edges, or how many bins of equal width; dates as text"
    )
    labels: Annotated[list[Edge], Field(min_length=1)] | None = Field(
        None, description="one for each bin; bins of the same label are one group"
    )
    right: bool = Field(False, description="whether bins include their upper edge, not the lower")


How = Annotated[int, Field(ge=1)] | Name | BinsSpec
"""Length of a tile, a part of a date, or bins."""


def _as_items(value: object) -> object:
    return [value] if isinstance(value, (str, dict)) else value


def _unique(items: list[Any]) -> list[Any]:
    repeated = [str(item) for i, item in enumerate(items) if item in items[:i]]
    if repeated:
        raise ValueError(f"{', '.join(dict.fromkeys(repeated))} named more than once")
    return items


PartitionBy = Annotated[
    list[Name | Annotated[dict[Name, How], Field(min_length=1)]],
    BeforeValidator(_as_items),
    AfterValidator(_unique),
]


class Wanted(NamedTuple):
    """One axis as the spec asks for it.

    Attributes
    ----------
    path : str
        Dotted key.
    name : str
        Of a dimension, coordinate or variable.
    how : int, str, BinsSpec or None
        Length of a tile, a part of a date, bins, or none of these.
    """

    path: str
    name: str
    how: int | str | BinsSpec | None


def wanted_axes(items: Sequence[str | dict[str, int | str | BinsSpec]]) -> Iterator[Wanted]:
    """Yield what ``data.partition_by`` asks for, axis by axis."""
    for index, item in enumerate(items):
        path = f"data.partition_by.{index}"
        if isinstance(item, str):
            yield Wanted(path, item, None)
        else:
            yield from (Wanted(f"{path}.{name}", name, how) for name, how in item.items())
