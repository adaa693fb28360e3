"""The units of what is predicted, where the data still is where it was."""

from __future__ import annotations

import json
from pathlib import Path

from hpc_sweep.spec import SweepSpec


def target_units(spec: SweepSpec) -> str:
    """Return the units of the target; ``""`` where the data is elsewhere or does not say.

    Only metadata of zarr stores on disks are looked at, so that a report takes no time for it.
    """
    if len(spec.data.stores) != 1 or len(spec.targets) != 1:
        return ""
    folder = Path(spec.data.stores[0]) / (spec.data.group or "") / spec.targets[0]
    for name, key in (("zarr.json", "attributes"), (".zattrs", None)):
        try:
            metadata = json.loads((folder / name).read_text(encoding="utf-8"))
            attributes = metadata.get(key, {}) if key else metadata
            return str(attributes.get("units", ""))
        except (OSError, ValueError, AttributeError):
            continue
    return ""
