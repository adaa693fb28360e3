"""The input data set, opened lazily, read block by block."""

from hpc_sweep.source.copy import Copy, find_copy
from hpc_sweep.source.gathering import CopiedSource, copied_source
from hpc_sweep.source.marks import Watch
from hpc_sweep.source.opening import open_source
from hpc_sweep.source.pairs import PairSource
from hpc_sweep.source.samples import Samples
from hpc_sweep.source.source import Source
from hpc_sweep.source.tiling import SLAB_BYTES, Slab, copying_s, reading_s, slab_bytes, tiling_for
from hpc_sweep.source.windows import Window, largest_window, windows, within

__all__ = [
    "SLAB_BYTES",
    "CopiedSource",
    "Copy",
    "PairSource",
    "Samples",
    "Slab",
    "Source",
    "Watch",
    "Window",
    "copied_source",
    "copying_s",
    "find_copy",
    "largest_window",
    "open_source",
    "reading_s",
    "slab_bytes",
    "tiling_for",
    "windows",
    "within",
]
