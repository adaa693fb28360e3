"""Versions of what computes, and on which CPU."""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
from pathlib import Path

LIBRARIES = ("hpc-sweep", "scikit-learn", "numpy", "scipy", "xarray", "zarr", "dask")


def versions() -> dict[str, str]:
    """Return versions of Python and the libraries, and the CPU model."""
    found = {name: importlib.metadata.version(name) for name in LIBRARIES}
    return {"python": platform.python_version(), **found, "cpu": _cpu_model()}


def _cpu_model() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
