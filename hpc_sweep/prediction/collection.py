"""One model of all data, and boxes of samples as a Dask collection, by dask-ml."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dask
import dask.array
import numpy as np
from dask_ml.wrappers import ParallelPostFit
from numpy.typing import NDArray

from hpc_sweep.choices import Portion
from hpc_sweep.partitions import Pick
from hpc_sweep.prediction.outputs import Outputs
from hpc_sweep.source import SampleBox

Piece = tuple[NDArray[Any], NDArray[np.intp]]
"""Features of the samples of a box that are predicted, and which these are."""


class Collection:
    """Predictions of boxes, each a block that is read when it is asked for.

    Parameters
    ----------
    model : estimator
        Fitted.
    boxes : sequence of SampleBox
        Of data that is one partition.
    portion : str
        Which samples.
    outputs : Outputs
        What is predicted.
    dropna : bool
        Whether samples that lack a feature are left out.
    """

    def __init__(
        self,
        model: Any,
        boxes: Sequence[SampleBox],
        portion: Portion,
        outputs: Outputs,
        *,
        dropna: bool,
    ) -> None:
        self._model, self._boxes, self._outputs = model, boxes, outputs
        pieces = [dask.delayed(_piece, nout=2)(box, portion, dropna) for box in boxes]
        self._which = [which for _, which in pieces]
        data = boxes[0].source.data
        shape = (np.nan, len(data.features))
        X = dask.array.concatenate(
            [dask.array.from_delayed(piece[0], shape, data.dtype) for piece in pieces],
            allow_unknown_chunksizes=True,
        )
        wrapped = ParallelPostFit(
            model, predict_meta=np.empty(0), predict_proba_meta=np.empty((0, 0))
        )
        self._blocks = getattr(wrapped, outputs.method)(X).blocks

    def predicted(self, number: int) -> tuple[Pick, NDArray[Any], NDArray[np.intp]]:
        """Read a box and predict it.

        Returns
        -------
        pick : Pick
            Where its samples are.
        values : ndarray, shape (n_predicted, n_outputs of the model, *more)
            Predictions.
        which : ndarray of intp, shape (n_predicted,)
            Of which samples.
        """
        cut = self._boxes[number].cut
        ((_, pick),) = cut.picks(np.empty((1, 0), dtype=np.intp), {}, 1)
        with dask.config.set(scheduler="synchronous"):  # the task's own thread
            found, which = dask.compute(self._blocks[number], self._which[number])
        values = self._outputs.arranged(self._model, np.asarray(found))
        return pick, values[: which.size], which


def _piece(box: SampleBox, portion: Portion, dropna: bool) -> Piece:
    """Read the samples of a box that are predicted; one of zeros where there is none."""
    block = box.read(portion)
    everything = np.empty((1, 0), dtype=np.intp)
    for rows in box.rows(block, everything, portion) if block is not None else ():
        wanted = rows.wanted[0] & rows.whole[0] if dropna else rows.wanted[0]
        if wanted.any():
            which = np.flatnonzero(wanted)
            return rows.X[0][which], which
    data = box.source.data  # estimators take no empty array
    return np.zeros((1, len(data.features)), dtype=data.dtype), np.empty(0, dtype=np.intp)
