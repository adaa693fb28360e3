"""The input data set, opened lazily, read block by block."""

from hpc_sweep.source.opening import open_source
from hpc_sweep.source.source import Source

__all__ = ["Source", "open_source"]
