"""Call the user's loader: a function that returns the data."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import xarray as xr
from xarray.indexes import PandasMultiIndex

from hpc_sweep.errors import Fault, SpecError, disk_cause, disk_error, nearest
from hpc_sweep.estimators import NameFault, import_object
from hpc_sweep.spec import DataSpec


def call_loader(data: DataSpec) -> Any:
    """Return what `data.loader` returns.

    Raises
    ------
    SpecError
        When it cannot be imported or raises, with the line of the user's that did.
    DiskError
        When a disk fails inside it.
    """
    name = str(data.loader)
    try:
        function = _imported(name)
    except NameFault as error:
        raise SpecError([Fault("data.loader", str(error))]) from error
    try:
        return function(**data.loader_args)
    except (Exception, SystemExit) as error:  # a user's function may raise anything
        cause = disk_cause(error)
        if cause is not None:
            raise disk_error(cause, name, "read") from error
        raise SpecError([Fault("data.loader", f"'{name}' {_raised(error)}")]) from error


def as_stores_have_it(dataset: xr.Dataset) -> xr.Dataset:
    """Return a loader's data set without what no store has.

    Coordinates of several levels become one coordinate for each level, and numbers have this
    machine's order of bytes.
    """
    indexes = dataset.xindexes.items()
    levels = {index.dim for _, index in indexes if isinstance(index, PandasMultiIndex)}
    foreign = {
        name: variable.astype(variable.dtype.newbyteorder("="))
        for name, variable in dataset.variables.items()
        if not variable.dtype.isnative
    }
    return dataset.reset_index([*levels]).assign(foreign)


def _raised(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    text = " ".join(str(error).split())[:300]
    if len(frames) == 1:  # the call itself failed
        return f"cannot be called: {text}; data.loader_args are its arguments"
    return f"raised {type(error).__name__} in {frames[-1].filename}:{frames[-1].lineno}: {text}"


def _imported(name: str) -> Callable[..., Any]:
    place, _, function = name.rpartition(":")
    module = _module_of(Path(place)) if place.endswith(".py") else None
    if module is None:
        found = import_object(name)
    elif hasattr(module, function):
        found = getattr(module, function)
    else:
        hint = nearest(function, [each for each in vars(module) if not each.startswith("_")])
        raise NameFault(f"{place} has no '{function}'{hint}")
    if not callable(found):
        raise NameFault(f"'{name}' is of type {type(found).__name__}; a loader is a function")
    function_found: Callable[..., Any] = found
    return function_found


def _module_of(file: Path) -> ModuleType:
    """Run a module's file, so that what its owner changed is seen, and return the module."""
    spec = importlib.util.spec_from_file_location(f"_loader_{file.stem}", file)
    if spec is None or spec.loader is None or not file.is_file():
        raise NameFault(f"'{file}' does not exist")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickles look there
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))  # for modules beside it
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise NameFault(f"importing '{file}' {_raised(error)}") from error
    return module
