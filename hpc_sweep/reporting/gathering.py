"""What a report needs of a store: read chunk by chunk, kept as little as figures can show.

Of each partition a few numbers are kept (its best score, parameters, counts); of each candidate
those of a sample of partitions.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpc_sweep.candidates import plain_text, value_text
from hpc_sweep.choices import DONE, STATUS_MEANINGS
from hpc_sweep.errors import DamagedError, DiskError, disk_errors
from hpc_sweep.plan import Chunk
from hpc_sweep.store import Store

Floats = NDArray[np.float64]

SAMPLED_CELLS = 4_000_000
"""Of so many (partition, candidate) scores quantiles are computed."""

TIMED_FITS = 100_000_000
"""The times of so many fits are added up; of more, those of one result chunk in so many."""

MOST_REASONS = 1000
"""So many different reasons of failures are counted apart."""


@dataclass
class Choice:
    """A value that each partition's best candidate has: numbers, or codes of texts.

    Attributes
    ----------
    values : ndarray of float64, shape (n_partitions,)
        Numbers, or positions in `texts`; NaN where there is none or it does not apply.
    texts : list of str or None
        None where values are numbers.
    """

    values: Floats
    texts: list[str] | None = None


@dataclass(frozen=True, order=True)
class Reason:
    """Why candidates failed, or what was warned of."""

    status: int
    message: str


@dataclass
class Gathered:
    """What was read of a store; arrays run along all partitions, flattened.

    Attributes
    ----------
    store : Store
        The store.
    models : list of str
        Names, those of the spec first.
    best_score : ndarray of float64, shape (n_partitions,)
        As the store has it; NaN: none.
    spread : ndarray of float64, shape (n_partitions,)
        Standard deviation over the splits of the best candidate's score.
    lead : ndarray of float64, shape (n_partitions,)
        By how much it is above the best candidate of any other model; NaN where there is none.
    doubt : ndarray of float64, shape (n_partitions,)
        Standard deviation over the splits of that difference; NaN where it was not looked at.
    model : ndarray of int16, shape (n_partitions,)
        Position in `models`; −1: none.
    of_model : ndarray of float32, shape (n_models, n_partitions)
        The best score of any candidate of each model.
    params : dict of str to Choice
        Of the best candidates.
    others, held_out : dict of str to ndarray of float64, shape (n_partitions,)
        By metric: means of the best candidates, and what they score on samples held out.
    n_samples : ndarray of int64, shape (n_partitions,)
        −1: pending.
    status : ndarray of int8, shape (n_partitions,)
        ``partition_status``.
    sampled : ndarray of intp
        The partitions of which there are `scores`.
    scores : ndarray of float64, shape (n_sampled, n_rows)
        Mean score of each candidate or trial there.
    drawn : dict of str to ndarray, shape (n_sampled, n_rows)
        Of strategies whose candidates differ per partition: ``model`` and the parameters.
    fits : dict of str to int
        By model, fits that were timed.
    seconds : dict of str to float
        By model, what these took, scoring included.
    timed_share : float
        Share of the result chunks whose fits were timed.
    reasons : Counter of Reason
        Cells by reason; a status of done stands for a warning.
    examples : dict of Reason to int
        One partition with it.
    """

    store: Store
    models: list[str]
    best_score: Floats
    spread: Floats
    lead: Floats
    doubt: Floats
    model: NDArray[np.int16]
    of_model: NDArray[np.float32]
    params: dict[str, Choice]
    others: dict[str, Floats]
    held_out: dict[str, Floats]
    n_samples: NDArray[np.int64]
    status: NDArray[np.int8]
    sampled: NDArray[np.intp]
    scores: Floats
    drawn: dict[str, NDArray[Any]]
    fits: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    timed_share: float = 1.0
    reasons: Counter[Reason] = field(default_factory=Counter)
    examples: dict[Reason, int] = field(default_factory=dict)

    @property
    def n_partitions(self) -> int:
        """How many there are."""
        return len(self.best_score)


def gather(store: Store) -> Gathered:
    """Read what a report needs of a store.

    Raises
    ------
    DamagedError
        When a chunk is damaged.
    """
    return _Gathering(store).result()


class _Gathering:
    """Reads one store, result chunk by result chunk."""

    def __init__(self, store: Store) -> None:
        self._store, self._strategy = store, store.strategy
        spec = store.spec
        names = [*self._strategy.model_names, *(c.model_name for c in store.candidates)]
        self._models = list(dict.fromkeys(names))
        size = store.grid.size
        self._metric = spec.refit_metric
        self._rng = np.random.default_rng(0)
        self._sample_share = min(1.0, SAMPLED_CELLS / max(1, size * self._strategy.n_rows))
        fits = size * self._strategy.n_rows * store.header.n_splits
        self._timed_every = -(-fits // TIMED_FITS)
        self._known = {name: _tried(store, name) for name in self._strategy.parameters}
        self._pieces: list[tuple[NDArray[np.intp], Floats, dict[str, NDArray[Any]]]] = []
        held_out = [m for m in spec.metrics if store.holds_out]
        self._g = Gathered(
            store,
            self._models,
            _blank(size),
            _blank(size),
            _blank(size),
            _blank(size),
            np.full(size, -1, dtype=np.int16),
            np.full((len(self._models), size), np.nan, dtype=np.float32),
            {name: Choice(_blank(size)) for name in self._strategy.parameters},
            {m: _blank(size) for m in spec.metrics if m != self._metric},
            {m: _blank(size) for m in held_out},
            np.full(size, -1, dtype=np.int64),
            np.zeros(size, dtype=np.int8),
            np.empty(0, dtype=np.intp),
            np.empty((0, self._strategy.n_rows)),
            {},
        )

    def result(self) -> Gathered:
        """Read all chunks."""
        found = self._g
        chunks = list(np.ndindex(*self._store.grid.chunk_grid(self._store.header.chunks)))
        for number, chunk in enumerate(chunks):
            self._chunk(chunk, timed=number % self._timed_every == 0)
        timed = len(range(0, len(chunks), self._timed_every))
        found.timed_share = timed / max(1, len(chunks))
        if self._pieces:
            found.sampled = np.concatenate([piece[0] for piece in self._pieces])
            found.scores = np.concatenate([piece[1] for piece in self._pieces])
            names = self._pieces[0][2]
            found.drawn = {n: np.concatenate([p[2][n] for p in self._pieces]) for n in names}
        for name, choice in found.params.items():
            found.params[name] = _as_numbers(choice, self._known[name])
        return found

    def _chunk(self, chunk: Chunk, timed: bool) -> None:
        store, found = self._store, self._g
        region = store.region(chunk)
        ranges = np.ix_(*(np.arange(part.start, part.stop) for part in region))
        flat = np.ravel_multi_index(ranges, store.header.shape) if region else np.zeros((), int)
        where = np.asarray(flat, dtype=np.intp).ravel()

        def read(name: str) -> NDArray[Any]:
            values = self._read(name, region)
            return values.reshape(len(where), *values.shape[len(region) :])

        found.status[where] = read("partition_status")
        found.n_samples[where] = read("n_samples")
        status = read("status")
        if not (status > 0).any():
            return
        best = read("best_index").astype(np.intp)
        found.best_score[where] = read("best_score")
        found.model[where] = _codes(read("best_model"), self._models)
        for metric, values in found.held_out.items():
            values[where] = read(f"holdout_{metric}")
        for name, choice in found.params.items():
            chosen = read(f"best_param_{name}")
            if chosen.dtype.kind == "f":
                choice.values[where] = chosen
            else:
                choice.texts = []
                codes = _codes(chosen, self._known[name])
                choice.values[where] = np.where(codes < 0, np.nan, codes)
        last = read("last_iteration") if "last_iteration" in store.group else None
        means = _of_last(read(f"mean_test_{self._metric}"), last)
        found.spread[where] = _at(_of_last(read(f"std_test_{self._metric}"), last), best)
        for metric, values in found.others.items():
            values[where] = _at(_of_last(read(f"mean_test_{metric}"), last), best)
        means = np.where(self._strategy.in_spec, means, np.nan)
        drawn = self._drawn(read)
        models = self._model_of_rows(drawn, means.shape)
        for code in range(len(self._models)):
            of_it = np.where(models == code, means, np.nan)
            found.of_model[code, where] = np.fmax.reduce(of_it, axis=1)
        next_best = _next_best(means, models, best)
        found.lead[where] = _at(means, best) - _at(means, next_best)
        if timed and len(self._models) > 1:
            scores = _of_last(read(f"test_{self._metric}"), last)
            found.doubt[where] = _deviation(_at(scores, best) - _at(scores, next_best))
        picked = self._rng.random(len(where)) < self._sample_share
        kept = {name: values[picked] for name, values in drawn.items()}
        self._pieces.append((where[picked], means[picked], kept))
        if timed:
            self._times(read, models)
        self._reasons(read, status, where)

    def _drawn(self, read: Any) -> dict[str, NDArray[Any]]:
        """Return model and parameters of trials; nothing where candidates are the same for all."""
        if self._strategy.dim == "candidate":
            return {}
        names = ["model", *(f"param_{name}" for name in self._strategy.parameters)]
        return {name.removeprefix("param_"): read(name) for name in names}

    def _model_of_rows(
        self, drawn: Mapping[str, NDArray[Any]], shape: tuple[int, ...]
    ) -> NDArray[np.intp]:
        if drawn:
            return np.asarray(drawn["model"], dtype=np.intp)
        codes = [self._models.index(c.model_name) for c in self._store.candidates]
        return np.broadcast_to(np.array(codes, dtype=np.intp), shape)

    def _times(self, read: Any, models: NDArray[np.intp]) -> None:
        found = self._g
        seconds = read("fit_time").astype(float) + np.nan_to_num(read("score_time"))
        seconds = seconds.reshape(*models.shape, -1)
        for code, name in enumerate(found.models):
            taken = seconds[models == code]
            counted = np.isfinite(taken)
            found.fits[name] = found.fits.get(name, 0) + int(counted.sum())
            found.seconds[name] = found.seconds.get(name, 0.0) + float(taken[counted].sum())

    def _reasons(self, read: Any, status: NDArray[np.int8], where: NDArray[np.intp]) -> None:
        found = self._g
        messages = read("message")
        told = messages != ""
        told &= self._strategy.in_spec
        for row, column in np.argwhere(told | ((status > DONE) & self._strategy.in_spec)):
            reason = Reason(int(status[row, column]), str(messages[row, column]))
            if reason not in found.reasons and len(found.reasons) >= MOST_REASONS:
                reason = Reason(reason.status, "other reasons")
            found.reasons[reason] += 1
            found.examples.setdefault(reason, int(where[row]))

    def _read(self, name: str, region: tuple[slice, ...]) -> NDArray[Any]:
        place = self._store.path / name
        array: Any = self._store.group[name]
        try:
            with disk_errors(place, "read"):
                return np.asarray(array[region] if region else array[...])
        except DiskError:
            raise
        except (ValueError, OSError, RuntimeError) as error:
            raise DamagedError(
                f"{place} is damaged; hpc-sweep verify {self._store.path} names the file and what "
                "mends it"
            ) from error


def _tried(store: Store, name: str) -> list[str]:
    """Return the texts of all values of a parameter that were tried."""
    if store.strategy.dim == "candidate":
        texts = [value_text(c, name) for c in store.candidates if name in c.params]
    else:
        categories = store.group[f"param_{name}"].attrs.get("categories", "[]")
        texts = [plain_text(value) for value in json.loads(str(categories))]
    return list(dict.fromkeys(texts))


def _codes(texts: NDArray[Any], known: list[str]) -> NDArray[np.int64]:
    """Return positions of texts among those known, which may become more; −1 for ``""``."""
    import pandas as pd

    codes, found = pd.factorize(np.asarray(texts, dtype=object))
    known.extend(text for text in map(str, found) if text and text not in known)
    table = [known.index(text) if text else -1 for text in map(str, found)]
    return np.array([*table, -1], dtype=np.int64)[codes]


def _blank(size: int) -> Floats:
    return np.full(size, np.nan)


def _at(values: Floats, rows: NDArray[np.intp]) -> Floats:
    """Return the values of one row of each partition; NaN where it is −1."""
    taken: Floats = values[np.arange(len(rows)), rows].astype(float)
    taken[rows < 0] = np.nan
    return taken


def _next_best(means: Floats, models: NDArray[np.intp], best: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the best row of any other model than that of the best row; −1: none."""
    own = models[np.arange(len(best)), best]
    others = np.where(models == own[:, np.newaxis], np.nan, means)
    ranked = np.where(np.isnan(others), -np.inf, others)
    return np.where((best >= 0) & np.isfinite(others).any(axis=1), ranked.argmax(axis=1), -1)


def _deviation(differences: Floats) -> Floats:
    """Return the standard deviation over splits, those absent left out; NaN of fewer than two."""
    there = np.isfinite(differences)
    count = there.sum(axis=1)
    held = np.where(there, differences, 0.0)
    mean = held.sum(axis=1) / np.maximum(count, 1)
    squares = np.where(there, (held - mean[:, np.newaxis]) ** 2, 0.0).sum(axis=1)
    return np.where(count > 1, np.sqrt(squares / np.maximum(count - 1, 1)), np.nan)


def _of_last(values: Floats, last: NDArray[Any] | None) -> Floats:
    """Return values along (partition, row, …): where there are iterations, of each row's last."""
    if last is None:
        return values
    places = np.arange(values.shape[0])[:, np.newaxis], np.arange(values.shape[1]), last
    taken: Floats = values[places].astype(float)
    taken[last < 0] = np.nan
    return taken


def _as_numbers(choice: Choice, texts: list[str]) -> Choice:
    """Return texts that all are numbers as such: some candidates lack the parameter."""
    if choice.texts is None:
        return choice
    numbers: list[Any] = []
    with contextlib.suppress(ValueError):
        numbers = [json.loads(text) for text in texts]
    if not numbers or any(isinstance(n, bool) or not isinstance(n, (int, float)) for n in numbers):
        return Choice(choice.values, texts)
    table = np.array([*map(float, numbers), np.nan])
    codes = np.where(np.isnan(choice.values), len(texts), choice.values).astype(np.intp)
    return Choice(table[codes])


def states(status: NDArray[np.int8]) -> dict[str, int]:
    """Return partitions by state, without those there are none of."""
    counts = np.bincount(status, minlength=len(STATUS_MEANINGS))
    return {STATUS_MEANINGS[code]: int(count) for code, count in enumerate(counts) if count}
