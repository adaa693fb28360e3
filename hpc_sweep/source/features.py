"""Features that are made while reading: parts of dates, and other samples of a variable.

``time.hour`` is the hour of ``time``. ``t2m@-24h`` is ``t2m`` 24 hours before, ``t2m@+1h`` an hour
after, ``t2m@-1`` one step before. Samples without such a partner have a missing value. What is made
of one variable is made of one reading of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.backends.common import BackendArray
from xarray.core import indexing

from hpc_sweep.errors import Fault, listed, nearest
from hpc_sweep.source.axes import DATE_PARTS, Refusal, date_part
from hpc_sweep.source.reading import Box, Reading
from hpc_sweep.source.shifts import Shift, make_shift
from hpc_sweep.spec import DataSpec

_SHIFTED = re.compile(r"(.+)@([+-]\d+)(\w*)")
_UNSIGNED = re.compile(r".+@\d+\w*")
_PART = re.compile(r"(.+)\.(\w+)")


@dataclass(frozen=True)
class Made:
    """How a variable is made of a stored one.

    Attributes
    ----------
    variable : str
        The stored one.
    part : str or None
        Which part of its dates.
    shift : Shift or None
        Of which other elements.
    """

    variable: str
    part: str | None
    shift: Shift | None

    def wanted(self, box: Mapping[str, NDArray[np.intp]]) -> dict[str, NDArray[np.intp]]:
        """Return which elements of the stored variable those in a box are made of."""
        if self.shift is None:
            return dict(box)
        partners = self.shift.partners[box[self.shift.dim]]
        return {**box, self.shift.dim: np.unique(partners[partners >= 0])}

    def of(
        self,
        stored: xr.Variable,
        there: Mapping[str, NDArray[np.intp]],
        box: Mapping[str, NDArray[np.intp]],
    ) -> xr.Variable:
        """Return the values in a box, made of what is there of the stored variable."""
        plain = stored if self.part is None else _part(stored, self.part)
        if self.shift is None:
            return _inside(plain, there, box)
        dim, partners = self.shift.dim, self.shift.partners[box[self.shift.dim]]
        has = partners >= 0
        around = {**box, dim: partners[has]}
        found = _inside(plain, there, around)
        if not self.shift.has_gaps:
            return found
        shape = [has.size if d == dim else n for d, n in found.sizes.items()]
        dtype, missing = _with_gaps(found.dtype)
        values = np.full(shape, missing, dtype)
        values[tuple(has if d == dim else slice(None) for d in found.dims)] = found.values
        return xr.Variable(found.dims, values)


@dataclass(frozen=True)
class MadeReading:
    """Variables of a data set, some of them made of others."""

    stored: Reading
    sizes: Mapping[str, int]
    made: Mapping[str, Made]

    def sources(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return the stored variables that some are made of, each once."""
        return tuple(dict.fromkeys(self.made[n].variable if n in self.made else n for n in names))

    def read(self, names: Sequence[str], box: Box) -> dict[str, xr.Variable]:
        """Read variables inside a box; what they are made of is read once."""
        inside = {dim: np.arange(n)[box.get(dim, slice(None))] for dim, n in self.sizes.items()}
        recipes = {name: self.made.get(name) or Made(name, None, None) for name in names}
        wanted: dict[str, dict[str, NDArray[np.intp]]] = {}
        for made in recipes.values():
            more, before = made.wanted(inside), wanted.get(made.variable)
            wanted[made.variable] = more if before is None else _united(before, more)
        stored = self._read_stored(wanted)
        return {
            name: made.of(stored[made.variable], wanted[made.variable], inside)
            for name, made in recipes.items()
        }

    def _read_stored(
        self, wanted: Mapping[str, Mapping[str, NDArray[np.intp]]]
    ) -> dict[str, xr.Variable]:
        """Read stored variables, those in the same box together."""
        together: list[tuple[Box, list[str]]] = []
        for name, indices in wanted.items():
            own: Box = {dim: _as_slice(each) for dim, each in indices.items()}
            for other, names in together:
                if _equal(own, other):
                    names.append(name)
                    break
            else:
                together.append((own, [name]))
        found: dict[str, xr.Variable] = {}
        for box, names in together:
            found |= self.stored.read(names, box)
        return found


def stored_reading(reading: Reading) -> Reading:
    """Return what reads the stored variables."""
    return reading.stored if isinstance(reading, MadeReading) else reading


class _Lazy(BackendArray):
    """A made variable, read when it is indexed."""

    def __init__(self, name: str, reading: MadeReading, like: xr.Variable, dtype: Any) -> None:
        self.name = name
        self.reading = reading
        self.dims = tuple(map(str, like.dims))
        self.shape = like.shape
        self.dtype = np.dtype(dtype)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        kind = indexing.IndexingSupport.BASIC
        return indexing.explicit_indexing_adapter(key, self.shape, kind, self._read)

    def _read(self, key: tuple[int | slice, ...]) -> NDArray[Any]:
        box: dict[str, NDArray[np.intp]] = {}
        found: list[int | slice] = []
        for dim, length, part in zip(self.dims, self.shape, key, strict=True):
            box[dim] = np.atleast_1d(np.arange(length)[part])  # xarray's steps are positive here
            found.append(slice(None) if isinstance(part, slice) else 0)
        values: NDArray[Any] = self.reading.read([self.name], box)[self.name].values[tuple(found)]
        return values


def with_made(
    data: DataSpec, dataset: xr.Dataset, stored: Reading
) -> tuple[xr.Dataset, Reading, list[Fault]]:
    """Add the variables that a spec names and that have to be made.

    Parameters
    ----------
    data : DataSpec
        The section; its features, targets and weights are looked at.
    dataset : xarray.Dataset
        The lazily opened data set.
    stored : Reading
        Reads it.

    Returns
    -------
    dataset : xarray.Dataset
        With the made variables, not read.
    reading : Reading
        Reads it.
    faults : list of Fault
        What is wrong.
    """
    faults: list[Fault] = []
    recipes: dict[str, tuple[Made, Any]] = {}
    wanted = [(f"data.features.{i}", name) for i, name in enumerate(data.features)]
    wanted += [(f"data.target.{i}", name) for i, name in enumerate(data.target or ())]
    wanted += [] if data.sample_weight is None else [("data.sample_weight", data.sample_weight)]
    for path, name in wanted:
        try:
            recipe = None if name in dataset.variables else _recipe(name, data, dataset)
        except Refusal as refusal:
            faults.append(Fault(path, str(refusal)))
            continue
        if recipe is not None:
            recipes[name] = recipe
    if not recipes:
        return dataset, stored, faults
    made, reading = with_recipes(dataset, stored, recipes)
    return made, reading, faults


def with_recipes(
    dataset: xr.Dataset, stored: Reading, recipes: Mapping[str, tuple[Made, Any]]
) -> tuple[xr.Dataset, Reading]:
    """Add made variables to a data set.

    Parameters
    ----------
    dataset : xarray.Dataset
        Has what they are made of.
    stored : Reading
        Reads it.
    recipes : mapping of str to (Made, dtype)
        How each is made, and its dtype.
    """
    sizes = {str(dim): int(size) for dim, size in dataset.sizes.items()}
    reading = MadeReading(stored, sizes, {name: made for name, (made, _) in recipes.items()})
    variables = {}
    for name, (made, dtype) in recipes.items():
        like = dataset.variables[made.variable]
        values = indexing.LazilyIndexedArray(_Lazy(name, reading, like, dtype))
        chunks = like.encoding.get("preferred_chunks")
        encoding = {"preferred_chunks": chunks} if chunks else {}
        variables[name] = xr.Variable(like.dims, values, like.attrs, encoding)
    return dataset.assign(variables), reading


def _recipe(name: str, data: DataSpec, dataset: xr.Dataset) -> tuple[Made, Any] | None:
    """Return how a variable is made and its dtype, or None where its name does not say it."""
    shifted = _SHIFTED.fullmatch(name)
    base = shifted[1] if shifted else name
    part = None
    split = _PART.fullmatch(base)
    if base not in dataset.variables and split and split[1] in dataset.variables:
        base, part = split[1], split[2]
    if base not in dataset.variables and split and split[2] in DATE_PARTS:
        base = split[1]
    elif not shifted and part is None:
        if _UNSIGNED.fullmatch(name):
            raise Refusal(f"'{name}' says neither before nor after: write @- or @+")
        return None
    if base not in dataset.variables:
        known = [str(each) for each in dataset.variables]
        hint = nearest(base, known) or f"; it has {listed(known)}"
        raise Refusal(f"the data set has no variable '{base}'{hint}")
    variable = dataset.variables[base]
    dtype = variable.dtype
    if part is not None:
        shape = (1,) * variable.ndim
        if dtype.kind == "M":
            sample = xr.Variable(variable.dims, np.zeros(shape, dtype))
        else:  # other calendars are known by their first date
            sample = variable[tuple(map(slice, shape))]
        dtype = _part(sample, part, base).dtype
    shift = None
    if shifted:
        shift = make_shift(base, int(shifted[2]), shifted[3], data, dataset)
        dtype = _with_gaps(dtype)[0] if shift.has_gaps else dtype
    return Made(base, part, shift), dtype


def _part(values: xr.Variable, part: str, name: str = "") -> xr.Variable:
    if not values.size:
        return xr.Variable(values.dims, np.zeros(values.shape, dtype=np.int64))
    return date_part(xr.DataArray(values, name=name), part).variable


def _with_gaps(dtype: np.dtype[Any]) -> tuple[Any, Any]:
    """Return a dtype that has a missing value, and that value."""
    if dtype.kind == "M":
        return dtype, np.datetime64("NaT")
    if dtype.kind in "OSUT":
        return np.dtype(object), None
    return (dtype if dtype.kind == "f" else np.dtype(np.float64)), np.nan


def _inside(
    values: xr.Variable,
    there: Mapping[str, NDArray[np.intp]],
    box: Mapping[str, NDArray[np.intp]],
) -> xr.Variable:
    """Return values at some indices, of those that are there."""
    at = {}
    for dim in map(str, values.dims):
        if not np.array_equal(there[dim], box[dim]):
            at[dim] = _as_slice(np.searchsorted(there[dim], box[dim]))
    return values.isel(at)


def _united(
    one: Mapping[str, NDArray[np.intp]], other: Mapping[str, NDArray[np.intp]]
) -> dict[str, NDArray[np.intp]]:
    return {
        dim: each if np.array_equal(each, other[dim]) else np.union1d(each, other[dim])
        for dim, each in one.items()
    }


def _as_slice(indices: NDArray[np.intp]) -> Any:
    """Return ascending indices without gaps as a slice."""
    if not indices.size:
        return slice(0, 0)
    first, last = int(indices[0]), int(indices[-1])
    whole = last - first == indices.size - 1 and bool((np.diff(indices) == 1).all())
    return slice(first, last + 1) if whole else indices


def _equal(one: Box, other: Box) -> bool:
    return one.keys() == other.keys() and all(
        type(each) is type(other[dim]) and np.all(each == other[dim]) for dim, each in one.items()
    )
