"""The input data set, opened lazily, read block by block."""

from hpc_sweep.source.opening import open_source
from hpc_sweep.source.samples import Samples
from hpc_sweep.source.source import Source
from hpc_sweep.source.windows import Window, largest_window, windows, within

__all__ = [
    "Samples",
    "Source",
    "Window",
    "largest_window",
    "open_source",
    "windows",
    "within",
]
