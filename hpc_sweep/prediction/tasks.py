"""What a worker does: predict boxes of the data, each of which is one chunk of the result."""

from __future__ import annotations

import functools
import logging
import resource
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from distributed import Client, Future, get_worker
from numpy.typing import NDArray
from sklearn import config_context

from hpc_sweep.choices import Portion
from hpc_sweep.clusters import seconds_to_work
from hpc_sweep.errors import ClusterError, DiskError, SpecError, StoreError, SweepError
from hpc_sweep.models import Trust, open_models
from hpc_sweep.plan import Chunk, Unit
from hpc_sweep.prediction.cutting import Cutting
from hpc_sweep.prediction.destination import Destination
from hpc_sweep.prediction.keeping import Kept
from hpc_sweep.prediction.matching import Matching
from hpc_sweep.prediction.opening import sweep_source
from hpc_sweep.prediction.outputs import Output, Outputs
from hpc_sweep.source import Rows, SampleBox, Watch, open_source
from hpc_sweep.spec import DataSpec
from hpc_sweep.store import PartName, Receipt, Store, check_nonce, group_access
from hpc_sweep.versions import installed
from hpc_sweep.work.tasks import Context, check_versions, key_of

Predicted = tuple[list[NDArray[Any]], dict[str, str]]
"""A box's arrays, and why partitions failed, by their indices."""

MODELS_AT_ONCE = 512
"""So many are asked for together, so that their data is read together."""

MODELS_PER_UNIT = 2.0
"""A unit goes on for so many times what its models took, though it is longer than others."""


@dataclass(frozen=True)
class Task:
    """What every task of a prediction is told.

    Attributes
    ----------
    data : str
        What is predicted, as JSON.
    out : str
        Where it is written.
    notes : Path
        Folder for notes of what failed.
    portion : str
        Which samples.
    cutting : Cutting
        Boxes.
    outputs : Outputs
        What is written.
    trust : Trust
        Types that models may have, as the driver has found: workers need no key.
    """

    data: str
    out: str
    notes: Path
    portion: Portion
    cutting: Cutting
    outputs: Outputs
    trust: Trust


@dataclass(frozen=True)
class BoxTasks:
    """Predicts a range of boxes where a sweep's tasks search a unit.

    Parameters
    ----------
    context : Context
        What every task of a run is told.
    task : Task
        What those of this one are told besides.
    """

    guards: ClassVar[bool] = False
    context: Context
    task: Task

    def evaluate(self, client: Client, unit: Unit, *, guarded: bool) -> Future:
        """Submit a range of boxes."""
        key = key_of("boxes", f"{unit.start}-{unit.stop}")
        return self.context.submit(client, key, 0, predict_boxes, self.task, unit)

    def score(self, client: Client, unit: Unit, parts: list[PartName], *, guarded: bool) -> Any:
        """Score nothing: no unit is without boxes."""
        raise NotImplementedError

    def begun(self, client: Client) -> set[Any]:
        """Return the keys of tasks that are at work."""
        return self.context.begun(client)

    def fold(self, client: Client, chunk: Chunk, parts: list[PartName]) -> Any:
        """Fold nothing: a box is written whole."""
        raise NotImplementedError

    def step(self) -> str:
        """Return nothing: the driver itself does none of it."""
        return ""


@dataclass(frozen=True)
class Predictor:
    """What a worker keeps between the tasks of one prediction.

    Attributes
    ----------
    matching : Matching
        The data, and which partitions of the store it has.
    kept : Kept
        Models.
    destination : Destination
        Where predictions are written.
    task : Task
        What is asked for.
    watch : Watch
        Notices that the data changes.
    """

    matching: Matching
    kept: Kept
    destination: Destination
    task: Task
    watch: Watch

    def check_data(self) -> None:
        """Raise a `StoreError` when the data is no longer what the predictions are of."""
        if self.watch.changed():
            raise StoreError(
                f"{self.matching.source.data.origin} changed while it was predicted: its metadata "
                "or coordinates are others now. Put it back and run the same command again, or "
                "name another place for the predictions"
            )

    def boxes(self, numbers: Iterable[int]) -> Iterator[Predicted]:
        """Yield the predictions of boxes as the result has them, with what failed."""
        if self.matching.source.axes:
            yield from map(self._by_partition, numbers)
        else:
            yield from self._by_one(list(numbers))

    @property
    def _targets(self) -> list[int | None]:
        """Those that have a model of their own; None: all have one together."""
        outputs = self.task.outputs
        return list(range(len(outputs.arrays))) if outputs.separate else [None]

    def _box(self, number: int) -> SampleBox:
        return SampleBox(self.matching.source, self.task.cutting.window(number))

    def _by_partition(self, number: int) -> Predicted:
        """Predict a box, partition by partition."""
        box, outputs, targets = self._box(number), self.task.outputs, self._targets
        canvases = [box.canvas(each.dtype, each.fill, outputs.more) for each in outputs.arrays]
        failures: dict[str, str] = {}
        block = box.read(self.task.portion)
        partitions = box.partitions() if block is not None else np.empty((0, 0), dtype=np.intp)
        for first in range(0, len(partitions), MODELS_AT_ONCE):
            some = partitions[first : first + MODELS_AT_ONCE]
            known = [self.matching.of(some, target) for target in targets]
            models = [self.kept.of(each) for each in known]
            place = {tuple(each): i for i, each in enumerate(some.tolist())}
            for rows in box.rows(block or {}, some, self.task.portion):
                own = [place[tuple(each)] for each in rows.partitions.tolist()]
                for target, indices, of in zip(targets, known, models, strict=True):
                    places = [tuple(indices[i].tolist()) for i in own]
                    chosen = [of[each] for each in places]
                    into = canvases if target is None else [canvases[target]]
                    arrays = outputs.arrays if target is None else [outputs.arrays[target]]
                    found, why = self._predicted(chosen, rows, arrays)
                    for canvas, values in zip(into, found, strict=True):
                        box.place(canvas, rows.pick, values)
                    why |= self.kept.reasons(places)
                    failures |= {_key(rows.partitions[i], target): text for i, text in why.items()}
        return [box.as_data(canvas, self.task.cutting.dims) for canvas in canvases], failures

    def _predicted(
        self, models: list[Any], rows: Rows, arrays: Iterable[Output]
    ) -> tuple[list[NDArray[Any]], dict[int, str]]:
        """Return predictions for some outputs of a model, and which partitions failed."""
        outputs, shape = self.task.outputs, rows.X.shape[:2]
        found = [
            np.full(
                (*shape, *outputs.more),
                each.fill,
                dtype=object if each.dtype == "str" else each.dtype,
            )
            for each in arrays
        ]
        dropna = self.matching.source.data.dropna
        failures: dict[int, str] = {}
        for i, model in enumerate(models):
            wanted = rows.wanted[i] & rows.whole[i] if dropna else rows.wanted[i]
            if model is None or not wanted.any():
                continue
            try:
                values, which = _of_model(outputs, model, rows.X[i], wanted, rows.whole[i])
            except Exception as error:  # an estimator's own
                failures[i] = _said(error)
                continue
            for column, array in enumerate(found):
                array[i, which] = values[:, column]
        return found, failures

    def _by_one(self, numbers: list[int]) -> Iterator[Predicted]:
        """Predict boxes by the one model of all data."""
        from hpc_sweep.prediction.collection import Collection  # dask-ml takes seconds to import

        outputs, everything = self.task.outputs, np.empty((1, 0), dtype=np.intp)
        boxes = [self._box(number) for number in numbers]
        dropna = self.matching.source.data.dropna
        made, lacking = [], dict[str, str]()
        for target in self._targets:
            ((place, model),) = self.kept.of(self.matching.of(everything, target)).items()
            lacking |= {_key((), target): why for why in self.kept.reasons([place]).values()}
            if model is not None:
                blocks = Collection(model, boxes, self.task.portion, outputs, dropna=dropna)
                made.append((target, blocks))
        for number, box in enumerate(boxes):
            canvases = [box.canvas(each.dtype, each.fill, outputs.more) for each in outputs.arrays]
            failures = dict(lacking)
            for target, blocks in made:
                try:
                    pick, values, which = blocks.predicted(number)
                except SweepError:  # of reading
                    raise
                except Exception as error:  # an estimator's own
                    failures[_key((), target)] = _said(error)
                    continue
                into = canvases if target is None else [canvases[target]]
                for column, canvas in enumerate(into):
                    all_values = np.full((1, pick.n_samples, *outputs.more), canvas.flat[0])
                    all_values = all_values.astype(canvas.dtype)
                    all_values[0, which] = values[:, column]
                    box.place(canvas, pick, all_values)
            yield [box.as_data(canvas, self.task.cutting.dims) for canvas in canvases], failures


def _of_model(
    outputs: Outputs,
    model: Any,
    X: NDArray[Any],
    wanted: NDArray[np.bool_],
    whole: NDArray[np.bool_],
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return the predictions of some samples, and of which: models may refuse what lacks values."""
    chosen = X[wanted]
    # what parameters are was checked when the model was fitted; values are looked at here, at once
    finite = bool(np.isfinite(chosen).all())
    with config_context(skip_parameter_validation=True, assume_finite=finite):
        try:
            return outputs.values(model, chosen), wanted
        except ValueError:
            some = wanted & whole
            if some.sum() == wanted.sum():
                raise
            if not some.any():
                return np.empty((0, len(outputs.arrays), *outputs.more)), some
            return outputs.values(model, X[some]), some


def _key(partition: Iterable[int], target: int | None) -> str:
    return ".".join(map(str, [*partition, *([] if target is None else [target])]))


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


# on workers


@functools.lru_cache(maxsize=1)
def _predictor(store: str, revision: int, task: Task) -> Predictor:
    opened = Store.open(store)
    if opened.header.revision != revision:
        raise StoreError(f"{store} was changed meanwhile; run the same command again")
    source = open_source(DataSpec.model_validate_json(task.data), by_label=False)
    matching = Matching(opened, source, sweep_source(opened.spec))
    destination = Destination.find(task.out)
    if destination is None:
        raise StoreError(f"{task.out} is gone; run the same command again")
    if matching.source.identity() != destination.header.job.data:
        raise StoreError(f"{source.data.origin} is not the data that {task.out} is made of")
    quietly = logging.getLogger("hpc_sweep").info  # the driver has told
    models = open_models(opened, trust=task.trust, warn=quietly)
    return Predictor(matching, Kept(models), destination, task, Watch(source, by_label=False))


def predict_boxes(context: Context, task: Task, unit: Unit) -> Receipt:
    """Predict a range of boxes and write each.

    Returns
    -------
    Receipt
        Names fewer boxes than asked when time was up.

    Raises
    ------
    DiskError
        When a disk refuses.
    StoreError
        When a model cannot be had, or a chunk of the data is damaged.
    ClusterError
        When this worker does not see what the driver sees.
    """
    begin = time.perf_counter()
    check_versions(context)
    try:
        predictor = _predictor(context.store, context.revision, task)
    except (StoreError, SpecError) as error:
        raise ClusterError(
            f"the worker {get_worker().address} does not see what the driver sees: {error}; data "
            "and store must be on a file system that all nodes have"
        ) from error
    try:
        done, failed = _predicted(context, task, unit, predictor, begin)
    except DiskError:  # a stale file stays stale until opened anew
        _predictor.cache_clear()
        raise
    return Receipt(
        PartName("", replace(unit, stop=done), 0, ""),
        time.perf_counter() - begin,
        get_worker().address,
        failed,
        installed("scikit-learn"),
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )


def _predicted(
    context: Context, task: Task, unit: Unit, predictor: Predictor, begin: float
) -> tuple[int, int]:
    """Predict and write boxes until time is up; return where that was, and how many failed."""
    failed, before = 0, predictor.kept.seconds
    numbers = range(unit.start, unit.stop)
    for number, (values, failures) in zip(numbers, predictor.boxes(numbers), strict=True):
        predictor.check_data()
        check_nonce(Path(context.lease), context.nonce)
        with group_access(context.for_group):
            index = task.cutting.index(number)
            predictor.destination.note_failures(task.notes, index, failures)
            predictor.destination.write(task.cutting, number, task.outputs, values)
        failed += len(failures)
        models_s = predictor.kept.seconds - before
        most_s = max(context.unit_seconds, MODELS_PER_UNIT * models_s)
        if time.perf_counter() - begin > most_s or seconds_to_work() < 0:
            return number + 1, failed
    return unit.stop, failed
