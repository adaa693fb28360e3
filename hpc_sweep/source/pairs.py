"""The whole data set as one partition whose samples a loader returned: ``(X, y)``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import joblib
import numpy as np
import xarray as xr
from numpy.typing import NDArray
from sklearn.utils.validation import _num_samples

from hpc_sweep.errors import Fault, SpecError, listed
from hpc_sweep.source.described import Described
from hpc_sweep.source.keys import key_names
from hpc_sweep.source.reading import PlainReading, Reading
from hpc_sweep.source.samples import Samples
from hpc_sweep.source.source import Source
from hpc_sweep.source.tables import ROW
from hpc_sweep.spec import DataSpec, SearchSpec

_NAMING = ("features", "target", "partition_by", "sample_dims", "where", "sample_weight")
"""Keys that name variables, of which there are none."""


@dataclass(frozen=True)
class PairSource(Source):
    """One partition whose samples are taken as they are: texts, sparse matrices, frames too.

    Attributes
    ----------
    samples : Samples
        What the loader returned.
    """

    samples: Samples = field(default_factory=lambda: Samples(()))

    @property
    def targets(self) -> tuple[str, ...]:
        """Made-up names of the columns of y, maybe none."""
        if self.samples.y is None:
            return ()
        shape = np.shape(self.samples.y)
        return tuple(f"y{i}" for i in range(shape[1])) if len(shape) > 1 else ("y",)

    @property
    def variables(self) -> tuple[str, ...]:
        """Return no names: nothing is read but by the loader."""
        return ()

    @property
    def n_features(self) -> int:
        """How many numbers a sample is as large as."""
        itemsize = np.dtype(self.data.dtype).itemsize
        return -(-_nbytes(self.samples.X) // max(1, itemsize * self.n_samples))

    @property
    def source_bytes(self) -> int:
        """Bytes of what the loader returned."""
        return sum(map(_nbytes, self.samples.given))

    @property
    def has_weights(self) -> bool:
        """Whether the loader returned any."""
        return self.samples.weights is not None

    @property
    def chunk_bytes(self) -> int:
        """Return 0: nothing is read piece by piece."""
        return 0

    def described_features(self) -> dict[str, Described]:
        """Return nothing: columns have no names."""
        return {}

    def identity(self) -> str:
        """Return a digest of the samples themselves."""
        X, y, weights = self.samples.given
        return str(joblib.hash((X, y) if weights is None else (X, y, weights)))

    def read(
        self, partitions: NDArray[np.intp], reading: Reading | None = None
    ) -> Iterator[Samples]:
        """Yield the samples, for each of the partitions, of which there is one."""
        for _ in partitions:
            yield self.samples


def pair_source(data: DataSpec, search: SearchSpec | None, found: tuple[Any, ...]) -> PairSource:
    """Check what a loader returned, and what the spec says of it.

    Raises
    ------
    SpecError
        When it is not X, y and maybe weights of equal length, or the spec names variables.
    """
    what = f"the (X, y) of '{data.loader}'"
    faults = [
        Fault(f"data.{key}", f"{what} has no variables, and is one partition; leave it out")
        for key in _NAMING
        if getattr(data, key)
    ]
    if key_names(data, search):
        path = "data.holdout" if data.held_out else "search.cv"
        faults.append(Fault(path, f"names a variable, and {what} has none"))
    faults += _pair_faults(data, found)
    if faults:
        raise SpecError(faults)
    X, y, *weights = found
    rows = xr.Dataset({"_rows": (ROW, np.zeros(_num_samples(X), dtype=bool))})
    samples = Samples(X, y, weights=weights[0] if weights else None)
    return PairSource(data, rows, (), (ROW,), PlainReading(rows), samples=samples)


def _pair_faults(data: DataSpec, found: tuple[Any, ...]) -> Iterator[Fault]:
    name = f"'{data.loader}'"
    if len(found) not in (2, 3):
        wanted = "(X, y) or (X, y, sample_weight)"
        yield Fault("data.loader", f"{name} returned {len(found)} things in place of {wanted}")
        return
    counts = {}
    for what, values in zip(("X", "y", "sample_weight"), found, strict=False):
        try:
            if values is not None or what == "X":
                counts[what] = _num_samples(values)
        except TypeError as error:
            yield Fault("data.loader", f"the {what} that {name} returned has no samples: {error}")
    if len({*counts.values()}) > 1:
        lengths = listed(f"{count} in {what}" for what, count in counts.items())
        yield Fault("data.loader", f"{name} returned samples of several lengths: {lengths}")
    elif 0 in counts.values():
        yield Fault("data.loader", f"{name} returned no samples")


def _nbytes(values: Any) -> int:
    if values is None:
        return 0
    if hasattr(values, "memory_usage"):  # data frames
        return int(np.sum(values.memory_usage(deep=True)))
    if hasattr(values, "indptr"):  # sparse matrices
        return int(values.data.nbytes + values.indices.nbytes + values.indptr.nbytes)
    if hasattr(values, "nbytes"):
        return int(values.nbytes)
    return sum(map(sys.getsizeof, values))
