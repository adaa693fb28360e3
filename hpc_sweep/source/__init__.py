"""The input data set, opened lazily, read block by block."""

from hpc_sweep.source.opening import open_source
from hpc_sweep.source.samples import Samples
from hpc_sweep.source.source import Source

__all__ = ["Samples", "Source", "open_source"]
