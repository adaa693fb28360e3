"""Make a table of ten groups, each with a relation of its own between ``x1``, ``x2`` and ``y``.

python make_data.py table.parquet --rows 200
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

GROUPS = 10
NOISE = 0.3


def make(rows: int) -> pd.DataFrame:
    """Return so many rows of each group: ``group, x1, x2, y``."""
    rng = np.random.default_rng(0)
    pieces = []
    for number in range(GROUPS):
        x1, x2 = rng.normal(size=(2, rows))
        bent = number / (GROUPS - 1)  # from a plane to a wave
        y = (1 - bent) * (x1 - 2 * x2) + bent * np.sin(3 * x1) * x2 + rng.normal(0, NOISE, rows)
        pieces.append(pd.DataFrame({"group": f"g{number}", "x1": x1, "x2": x2, "y": y}))
    return pd.concat(pieces, ignore_index=True)


def main() -> None:
    """Make what the command line says."""
    parser = argparse.ArgumentParser(description="Make a table of ten groups.")
    parser.add_argument("out", metavar="OUT.parquet", type=Path)
    parser.add_argument("--rows", type=int, default=200, help="of each group")
    given = parser.parse_args()
    make(given.rows).to_parquet(given.out)
    print(f"{given.out}: {GROUPS} groups × {given.rows} rows")


if __name__ == "__main__":
    main()
