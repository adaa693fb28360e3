"""Partitions: how data is cut into them, which there are, what they are called."""

from hpc_sweep.partitions.axes import Axis
from hpc_sweep.partitions.cut import Box, Cut, Joint, Pick
from hpc_sweep.partitions.grid import PartitionGrid
from hpc_sweep.partitions.labels import (
    Label,
    describe,
    partition_labels,
    plain_label,
    text_of,
    texts_of,
)
from hpc_sweep.partitions.reads import Layout, Reads

__all__ = [
    "Axis",
    "Box",
    "Cut",
    "Joint",
    "Label",
    "Layout",
    "PartitionGrid",
    "Pick",
    "Reads",
    "describe",
    "partition_labels",
    "plain_label",
    "text_of",
    "texts_of",
]
