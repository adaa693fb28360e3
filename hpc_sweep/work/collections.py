"""A run on partitions that no worker holds: blocks of samples lie on all workers.

The driver searches partition by partition and has none of the samples.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import dask
import numpy as np
from distributed import Client, Future, wait
from numpy.typing import NDArray

from hpc_sweep.choices import EMPTY, FAILED
from hpc_sweep.errors import disk_cause, disk_error
from hpc_sweep.estimators import is_classifier
from hpc_sweep.partitions import describe
from hpc_sweep.plan import Unit
from hpc_sweep.search import Blocks, Collective, Split, Task, Trainer, takes_classes
from hpc_sweep.source import Samples, Window, windows, within
from hpc_sweep.strategies import Request
from hpc_sweep.work.asking import Searching
from hpc_sweep.work.bench import Bench, open_bench
from hpc_sweep.work.evaluation import outcome_of, without_fits
from hpc_sweep.work.outcomes import Outcome
from hpc_sweep.work.remains import Loss
from hpc_sweep.work.tasks import Context, bench_of, check_versions, key_of
from hpc_sweep.work.threads import ThreadTasks

NAMES = ("X_train", "y_train", "X_test", "y_test")

TEST_SIZE = 0.2
"""Of each block at the most; so much less that all tests together are one block's size."""


@dataclass(frozen=True)
class Place:
    """Where a block is in the source, and how it is split.

    Attributes
    ----------
    index : ndarray of intp
        The partition.
    window : mapping of str to slice
        Which of its samples.
    test_size : float
        Part of them that scores are of.
    seed : int
        They are shuffled with.
    """

    index: NDArray[np.intp]
    window: Window
    test_size: float
    seed: int


def places(bench: Bench, index: NDArray[np.intp]) -> list[Place]:
    """Return the blocks of a partition, the same ones in every run."""
    strategy = bench.strategy
    cut = windows(bench.source, strategy.block_samples, index)
    size = strategy.test_size or min(TEST_SIZE, 1 / len(cut))
    seeds = np.random.SeedSequence(bench.seed(index)).generate_state(len(cut))
    return [Place(index, window, size, int(seed)) for window, seed in zip(cut, seeds, strict=True)]


@dataclass(frozen=True)
class Block:
    """One block of a partition on its worker; the driver has it without its samples.

    Attributes
    ----------
    arrays : dict of str to ndarray
        By `NAMES`; empty for the driver.
    lengths : dict of str to int
        How many samples each has.
    shapes, dtypes : dict
        What a sample of them is: its shape and type.
    classes : ndarray or None
        Of the target, where that is asked for.
    error : str
        Why there are none.
    """

    arrays: dict[str, NDArray[Any]]
    lengths: dict[str, int]
    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, str]
    classes: NDArray[Any] | None = None
    error: str = ""


class CollectionTasks(ThreadTasks):
    """Each partition is read once onto the workers, and searched by all of them together.

    Parameters
    ----------
    context : Context
        What every task is told.
    """

    def __init__(self, context: Context) -> None:
        super().__init__(context, threads=1)
        self._kept: tuple[NDArray[np.intp], tuple[Blocks, int, int] | Loss] | None = None

    def _outcomes(
        self, client: Client, bench: Bench, unit: Unit, *, guarded: bool
    ) -> Iterator[Outcome]:
        order = bench.store.grid.reading_order(bench.store.header.chunks, unit.chunk)
        for index in order[unit.start : unit.stop]:
            if guarded:
                reason = f"{describe(bench.labels(index))}: its search killed workers twice"
                yield without_fits(bench, unit, Loss(FAILED, reason))
                continue
            try:
                outcome = self._partition(client, bench, unit, index)
            except BaseException:  # what lay on a worker that died is gone
                self._kept = None
                raise
            yield outcome

    def _partition(
        self, client: Client, bench: Bench, unit: Unit, index: NDArray[np.intp]
    ) -> Outcome:
        """Read a partition onto the workers and search it."""
        place = describe(bench.labels(index)) or "the data"
        if self._kept is None or not np.array_equal(self._kept[0], index):
            self._kept = None  # its memory is needed
            self._step = f"reading {place} onto the workers"
            self._kept = index, self._read(client, bench, index)
        made = self._kept[1]
        if isinstance(made, Loss):
            return without_fits(bench, unit, made)
        blocks, *counts = made
        trained = unit.last - unit.first
        which = "1 candidate" if trained == 1 else f"{trained} candidates"
        self._step = f"training {which} on {place}, {sum(counts):,} samples"
        # in place of indices, of which there would be as many as samples
        splits = {0: [cast(Split, tuple(map(range, counts)))]}
        task = Task(blocks, None, splits, bench.seed(index))

        def engine(request: Request) -> Trainer | Collective:
            evaluator, training = bench.evaluator(request), request.training
            if training is None:
                return Collective(evaluator, lambda: using(client))
            return Trainer(evaluator, training.kind, training.options, lambda: using(client))

        searching = Searching(bench, unit, {0: task}, {0: {}}, engine=engine)
        return outcome_of(sum(counts), task, searching.run()[0])

    def _read(
        self, client: Client, bench: Bench, index: NDArray[np.intp]
    ) -> tuple[Blocks, int, int] | Loss:
        """Have all blocks read, each by one task.

        Returns
        -------
        tuple or Loss
            The blocks, and how many samples there are to train on and to test with.
        """
        name = key_of("block", describe(bench.labels(index)))
        futures = [
            client.submit(read_block, self._context, place, key=(name, number), pure=False)
            for number, place in enumerate(places(bench, index))
        ]
        known: list[Block] = client.gather(client.map(without_arrays, futures, pure=False))
        errors = [block.error for block in known if block.error]
        if errors:
            return Loss(FAILED, f"reading failed: {errors[0]}")
        lengths = {part: sum(block.lengths[part] for block in known) for part in known[0].lengths}
        if not lengths["X_train"] or not lengths["X_test"]:
            return Loss(EMPTY, "")
        classes = None
        if known[0].classes is not None:
            classes = np.unique(np.concatenate([block.classes for block in known]))
        parts = {
            part: _collection(client, futures, known, part, f"{part}-{name}")
            for part in known[0].lengths
        }
        wait([future for part in parts.values() for future in part.dask.values()])
        blocks = Blocks(
            *(parts["X_train"], parts.get("y_train"), parts["X_test"], parts.get("y_test")), classes
        )
        return blocks, lengths["X_train"], lengths["X_test"]


def _collection(
    client: Client, futures: Sequence[Future], known: Sequence[Block], part: str, name: str
) -> Any:
    """Return one part of all blocks as an array whose chunks lie on the workers already.

    Its keys are those of the futures, so that persisting it makes nothing anew.
    """
    from dask.array import Array  # a tenth of a worker's start, and most need it never

    rest = known[0].shapes[part]
    graph = {}
    for number, future in enumerate(futures):
        key = (name, number, *(0 for _ in rest))
        graph[key] = client.submit(array_of, future, part, key=key, pure=False)
    chunks = (tuple(block.lengths[part] for block in known), *((length,) for length in rest))
    return Array(graph, name, chunks, dtype=known[0].dtypes[part])


@contextlib.contextmanager
def using(client: Client) -> Iterator[Client]:
    """Let dask-ml find a client, whose loop it computes in: it takes none as an argument."""
    with client.as_current(), dask.config.set(scheduler=client.get):
        yield client


# on workers


def read_block(context: Context, place: Place) -> Block:
    """Read a block, and split its samples.

    Raises
    ------
    DiskError
        When the disk refuses.
    """
    check_versions(context)
    bench = bench_of(context)
    try:
        samples = samples_of(bench, place)
    except Exception as error:  # decoders of damaged chunks raise all kinds
        cause = disk_cause(error)
        if cause is not None:
            bench.source.dataset.close()  # a stale file stays stale until opened anew
            open_bench.cache_clear()
            raise disk_error(cause, bench.source.data.origin, "read") from error
        text = f"{type(error).__name__}: {' '.join(str(error).split())}"
        return Block({}, {}, {}, {}, error=text)
    arrays = split(samples, place)
    known = bench.has_classifier and samples.y is not None
    return Block(
        arrays,
        {name: len(array) for name, array in arrays.items()},
        {name: array.shape[1:] for name, array in arrays.items()},
        {name: str(array.dtype) for name, array in arrays.items()},
        np.unique(samples.y) if known else None,
    )


def samples_of(bench: Bench, place: Place) -> Samples:
    """Return the samples of a block."""
    (samples,) = within(bench.source, place.window).read(place.index[np.newaxis])
    return samples


def split(samples: Samples, place: Place) -> dict[str, NDArray[Any]]:
    """Shuffle samples and hold out a part, as `sklearn.model_selection.ShuffleSplit` does."""
    order = np.random.RandomState(place.seed).permutation(len(samples))
    count = int(np.ceil(place.test_size * len(samples)))
    found = {}
    for letter, values in (("X", samples.X), ("y", samples.y)):
        if values is not None:
            found[f"{letter}_train"] = values[order[count:]]
            found[f"{letter}_test"] = values[order[:count]]
    return found


def without_arrays(block: Block) -> Block:
    """Return all that is known of a block but its samples."""
    return Block({}, block.lengths, block.shapes, block.dtypes, block.classes, block.error)


def array_of(block: Block, name: str) -> NDArray[Any]:
    """Return one array of a block."""
    return block.arrays[name]


def train_again(bench: Bench, index: NDArray[np.intp], estimator: Any, n_calls: int) -> Any:
    """Train an estimator on the blocks that its candidate was trained on, one in memory at a time.

    Parameters
    ----------
    bench : Bench
        Has the source.
    index : ndarray of intp
        The partition.
    estimator : estimator
        Unfitted, with its random states set.
    n_calls : int
        How many blocks the candidate has seen.

    Returns
    -------
    estimator
        The same one, as it was when it was scored last.
    """
    blocks = places(bench, index)
    classes = None
    if takes_classes(estimator) and is_classifier(estimator):
        known = [np.unique(samples_of(bench, place).y) for place in blocks]
        classes = np.unique(np.concatenate(known))
    rng, order = np.random.RandomState(bench.seed(index)), np.empty(0, dtype=int)
    while len(order) < n_calls:  # as dask-ml draws them
        some = list(range(len(blocks)))
        rng.shuffle(some)
        order = np.append(order, some)
    for number in order[:n_calls]:
        arrays = split(samples_of(bench, blocks[number]), blocks[number])
        if len(arrays["X_train"]):
            more = {} if classes is None else {"classes": classes}
            y = [arrays["y_train"]] if "y_train" in arrays else []
            estimator.partial_fit(arrays["X_train"], *y, **more)
    return estimator
