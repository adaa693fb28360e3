"""Dates of NumPy's and of other calendars: what a text means, and numbers to compare them by."""

from __future__ import annotations

import re
from typing import Any

import cftime
import numpy as np
import pandas as pd
from numpy.typing import NDArray

EARLIEST = (1, 1, 1, 0, 0, 0)
"""Year, month, day, hour, minute, second where a date does not say them."""

SECONDS = "seconds since 1970-01-01"

_DATE = re.compile(r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:[T ](\d\d)(?::(\d\d)(?::(\d\d))?)?)?)?)?")


def date_of(text: Any, like: Any) -> Any:
    """Return the date that a text such as ``2019-03-25`` means.

    Parameters
    ----------
    text : object
        What a spec has.
    like : numpy.datetime64 or cftime.datetime
        A date of the same kind and calendar.

    Raises
    ------
    ValueError
        When it is none.
    """
    match = _DATE.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f"{text!r} is no date such as 2019-03-25")
    if isinstance(like, np.datetime64):
        return np.datetime64(text)
    fields = [int(given or least) for given, least in zip(match.groups(), EARLIEST, strict=True)]
    return type(like)(*fields, calendar=like.calendar)


def to_seconds(dates: NDArray[Any], calendar: str) -> NDArray[np.float64]:
    """Return dates of another calendar as numbers, NaN where there are none."""
    seconds = np.full(len(dates), np.nan)
    there = ~np.asarray(pd.isnull(dates))
    seconds[there] = cftime.date2num(dates[there], SECONDS, calendar)
    return seconds
