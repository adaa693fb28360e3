"""The input data set, opened lazily, read block by block."""

from hpc_sweep.source.blocks import Block, BlockLayout, block_layouts, block_reading
from hpc_sweep.source.boxes import Rows, SampleBox
from hpc_sweep.source.copy import Copy, find_copy, has_whole_copy
from hpc_sweep.source.damage import loaded
from hpc_sweep.source.described import Described, described, in_words
from hpc_sweep.source.features import stored_reading
from hpc_sweep.source.gathering import CopiedSource, copied_source
from hpc_sweep.source.indices import index_bytes
from hpc_sweep.source.keys import blocks
from hpc_sweep.source.layout import chunk_shape
from hpc_sweep.source.marks import Watch
from hpc_sweep.source.opening import open_source
from hpc_sweep.source.pairs import PairSource
from hpc_sweep.source.reading import Reading, as_estimators_take
from hpc_sweep.source.samples import Samples
from hpc_sweep.source.source import Source
from hpc_sweep.source.stores import is_url
from hpc_sweep.source.tiling import (
    SLAB_BYTES,
    Slab,
    copying_s,
    peers_s,
    reading_s,
    slab_bytes,
    tiling_for,
)
from hpc_sweep.source.windows import Window, largest_window, windows, within

__all__ = [
    "SLAB_BYTES",
    "Block",
    "BlockLayout",
    "CopiedSource",
    "Copy",
    "Described",
    "PairSource",
    "Reading",
    "Rows",
    "SampleBox",
    "Samples",
    "Slab",
    "Source",
    "Watch",
    "Window",
    "as_estimators_take",
    "block_layouts",
    "block_reading",
    "blocks",
    "chunk_shape",
    "copied_source",
    "copying_s",
    "described",
    "find_copy",
    "has_whole_copy",
    "in_words",
    "index_bytes",
    "is_url",
    "largest_window",
    "loaded",
    "open_source",
    "peers_s",
    "reading_s",
    "slab_bytes",
    "stored_reading",
    "tiling_for",
    "windows",
    "within",
]
