"""The spec: what users write, validated; all faults at once.

The YAML is read as YAML 1.2 (``1e-3`` is a number, ``1:00:00`` is text), with duplicate
keys refused.
"""

from __future__ import annotations

from hpc_sweep.spec.cluster import ChargeSpec, ClusterSpec, MachineProfile
from hpc_sweep.spec.holdout import Holdout
from hpc_sweep.spec.loading import absolute, load_machine, load_spec
from hpc_sweep.spec.partitions import BinsSpec, Wanted, wanted_axes
from hpc_sweep.spec.search import (
    ApartSpec,
    HalvingRandomSpec,
    HalvingSpec,
    HyperbandSpec,
    IncrementalSpec,
    OptunaSpec,
    RandomSpec,
    SearchSpec,
)
from hpc_sweep.spec.sections import (
    NAME_OF_OURS,
    OWN_NAMES,
    DataSpec,
    ModelSpec,
    OutputSpec,
    SweepSpec,
)
from hpc_sweep.spec.words import WORD
from hpc_sweep.spec.yaml import json_like, parse_yaml, yaml_text

__all__ = [
    "NAME_OF_OURS",
    "OWN_NAMES",
    "WORD",
    "ApartSpec",
    "BinsSpec",
    "ChargeSpec",
    "ClusterSpec",
    "DataSpec",
    "HalvingRandomSpec",
    "HalvingSpec",
    "Holdout",
    "HyperbandSpec",
    "IncrementalSpec",
    "MachineProfile",
    "ModelSpec",
    "OptunaSpec",
    "OutputSpec",
    "RandomSpec",
    "SearchSpec",
    "SweepSpec",
    "Wanted",
    "absolute",
    "json_like",
    "load_machine",
    "load_spec",
    "parse_yaml",
    "wanted_axes",
    "yaml_text",
]
