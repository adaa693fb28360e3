"""Versions of what computes, and on which CPU."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import platform
from collections.abc import Mapping
from pathlib import Path

LIBRARIES = ("hpc-sweep", "scikit-learn", "numpy", "scipy", "xarray", "zarr", "dask")


def versions() -> dict[str, str]:
    """Return versions of Python and the libraries, and the CPU model."""
    found = {name: importlib.metadata.version(name) for name in LIBRARIES}
    return {"python": platform.python_version(), **found, "cpu": _cpu_model()}


@functools.cache
def installed(library: str) -> str:
    """Return the version of one library."""
    return importlib.metadata.version(library)


def differences(expected: Mapping[str, str]) -> list[str]:
    """Return the libraries whose version here differs from what is expected, but for patches.

    Parameters
    ----------
    expected : mapping
        Versions by library.

    Returns
    -------
    list of str
        Such as ``scikit-learn 1.8.0 instead of 1.9.0``.
    """
    return [
        f"{name} {installed(name)} instead of {version}"
        for name, version in expected.items()
        if _minor(installed(name)) != _minor(version)
    ]


def _minor(version: str) -> list[str]:
    return version.split(".")[:2]


def _cpu_model() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
