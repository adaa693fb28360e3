"""Parts: the one durable file that a finished unit leaves.

A part is a ``.npz`` (never pickled). Its name says which store and unit it belongs to, and
its size and CRC-32, so that a damaged, short or foreign file is known without opening it:
``STORE_CHUNK_START-STOP_FIRST-LAST_SIZE_CRC.npz``.
"""

from __future__ import annotations

import functools
import io
import json
import re
import time
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpc_sweep.errors import StoreError, disk_errors
from hpc_sweep.plan import Unit
from hpc_sweep.store.durable import write_durably
from hpc_sweep.store.modelfile import Content

_NAME = re.compile(
    r"(?P<store>[0-9a-f]+)_(?P<chunk>(?:\d+(?:\.\d+)*)?)_(?P<start>\d+)-(?P<stop>\d+)"
    r"_(?P<first>\d+)-(?P<last>\d+)_(?P<size>\d+)_(?P<crc>[0-9a-f]{8})\.npz"
)


@dataclass(frozen=True)
class PartName:
    """What the name of a part says."""

    store: str
    unit: Unit
    size: int
    crc: str

    def __str__(self) -> str:
        return f"{self.store}_{self.unit.key}_{self.size}_{self.crc}.npz"


@dataclass(frozen=True)
class RefitPart:
    """What a unit found of the best candidates, fitted again.

    Attributes
    ----------
    n_samples : ndarray of int64, shape (n_partitions,)
        How many are held out.
    index : ndarray of int64, shape (n_partitions,)
        Which candidate it was; −1: none.
    scores : dict of str to ndarray of float64, shape (n_partitions,)
        By metric, on samples held out.
    messages : dict of int to str
        By partition, why something is missing.
    arrays : dict of str to ndarray, shape (n_partitions, …)
        ``coef`` and ``intercept``, where there are any.
    models : callable or None
        Brings the fitted models into memory, one a partition, empty where there is none.
    versions : mapping of str to str
        Of libraries that these were stored with.
    """

    n_samples: NDArray[np.int64]
    index: NDArray[np.int64]
    scores: Mapping[str, NDArray[np.float64]]
    messages: Mapping[int, str]
    arrays: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    models: Content | None = None
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """The results of one unit.

    Attributes
    ----------
    scores : dict of str to ndarray of float64, shape (n_partitions, n_candidates, …, n_splits)
        Test scores by metric, along the strategy's dimensions.
    fit_time, score_time : ndarray of float32, same shape
        Seconds.
    status : ndarray of int8, shape (n_partitions, n_candidates)
        One of the states in `hpc_sweep.choices`.
    n_samples, n_splits : ndarray of int64, shape (n_partitions,)
        Samples used and splits evaluated.
    messages : dict of (int, int) to str
        By partition and candidate, where there is something to say.
    more : dict of str to ndarray, shape (n_partitions, …)
        The strategy's own arrays, by name.
    n_test_samples : ndarray of int64, shape (n_partitions, n_splits), or None
        Test samples of each split; 0 where it is absent.
    refit : RefitPart or None
        Where the best candidates are fitted again.
    """

    scores: Mapping[str, NDArray[np.float64]]
    fit_time: NDArray[np.float32]
    score_time: NDArray[np.float32]
    status: NDArray[np.int8]
    n_samples: NDArray[np.int64]
    n_splits: NDArray[np.int64]
    messages: Mapping[tuple[int, int], str]
    more: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    n_test_samples: NDArray[np.int64] | None = None
    refit: RefitPart | None = None


@dataclass(frozen=True)
class Receipt:
    """What a unit's task returns: a few bytes.

    Attributes
    ----------
    part : PartName
        Its durable file; may cover fewer partitions than asked, when time was up.
    seconds : float
        How long it took.
    worker : str
        Where.
    failed : int
        Cells that failed.
    scikit_learn : str
        Version that it was made with.
    peak_bytes : int
        Most memory that its worker had until then.
    reasons : dict of str to int
        Why cells failed, cut short: the most frequent ones, and of how many.
    """

    part: PartName
    seconds: float
    worker: str
    failed: int
    scikit_learn: str
    peak_bytes: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)


def write_part(folder: Path, store_id: str, unit: Unit, part: Part) -> PartName:
    """Write a part durably and return its name.

    Raises
    ------
    DiskError
        When the disk refuses.
    """
    messages = [[i, j, text] for (i, j), text in sorted(part.messages.items())]
    arrays: dict[str, NDArray[Any]] = {
        **{f"test_{metric}": scores for metric, scores in part.scores.items()},
        **{f"more_{name}": values for name, values in part.more.items()},
        "fit_time": part.fit_time,
        "score_time": part.score_time,
        "status": part.status,
        "n_samples": part.n_samples,
        "n_splits": part.n_splits,
        "messages": np.frombuffer(json.dumps(messages).encode(), dtype=np.uint8),
    }
    if part.n_test_samples is not None:
        arrays["n_test_samples"] = part.n_test_samples
    if part.refit is not None:
        arrays |= _refit_arrays(part.refit)
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    content = buffer.getvalue()
    name = PartName(store_id, unit, len(content), f"{zlib.crc32(content):08x}")
    write_durably(folder / str(name), content)
    return name


def read_part(folder: Path, name: PartName, wait_s: float = 0.0) -> Part:
    """Read a part and check its size and checksum.

    Parameters
    ----------
    folder : Path
        The folder of parts.
    name : PartName
        Which one.
    wait_s : float
        How long to try again while the file is absent or short: network file systems show
        fresh files late.

    Raises
    ------
    StoreError
        When it is absent or damaged.
    """
    end = time.monotonic() + wait_s
    while (content := _checked(folder, name)) is None:
        if time.monotonic() >= end:
            raise StoreError(f"part {folder / str(name)} is missing or damaged")
        time.sleep(0.2)
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files if key != "out_models"}
    messages = json.loads(arrays.pop("messages").tobytes())
    scores, more = (
        {key.removeprefix(kind): arrays.pop(key) for key in list(arrays) if key.startswith(kind)}
        for kind in ("test_", "more_")
    )
    content_of = functools.partial(_models_of, folder, name)
    refit = _refit(arrays, content_of) if "out_index" in arrays else None
    texts = {(i, j): text for i, j, text in messages}
    return Part(scores, **arrays, messages=texts, more=more, refit=refit)


def _refit_arrays(part: RefitPart) -> dict[str, NDArray[Any]]:
    found: dict[str, NDArray[Any]] = {
        "out_index": part.index,
        "out_n_samples": part.n_samples,
        "out_messages": _json_array(sorted(part.messages.items())),
        **{f"outscore_{metric}": scores for metric, scores in part.scores.items()},
        **{f"outarray_{name}": values for name, values in part.arrays.items()},
    }
    if part.models is not None:
        models = part.models()
        found["out_sizes"] = np.array([len(model) for model in models], dtype=np.int64)
        found["out_models"] = np.frombuffer(b"".join(models), dtype=np.uint8)
        found["out_versions"] = _json_array(part.versions)
    return found


def _json_array(values: Any) -> NDArray[np.uint8]:
    return np.frombuffer(json.dumps(values).encode(), dtype=np.uint8)


def _refit(arrays: dict[str, NDArray[Any]], content: Content) -> RefitPart:
    """Take what is of refits from the arrays of a part; models stay on the disk."""
    index, n_samples, texts = (
        arrays.pop(f"out_{name}") for name in ("index", "n_samples", "messages")
    )
    scores, others = (
        {key.removeprefix(kind): arrays.pop(key) for key in list(arrays) if key.startswith(kind)}
        for kind in ("outscore_", "outarray_")
    )
    has_models = arrays.pop("out_sizes", None) is not None
    versions = json.loads(arrays.pop("out_versions").tobytes()) if has_models else {}
    messages = dict(json.loads(texts.tobytes()))
    models = content if has_models else None
    return RefitPart(n_samples, index, scores, messages, others, models, versions)


def _models_of(folder: Path, name: PartName) -> list[bytes]:
    """Return the models of a part."""
    content = _checked(folder, name)
    if content is None:
        raise StoreError(f"part {folder / str(name)} is missing or damaged")
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        sizes, models = file["out_sizes"], memoryview(file["out_models"])
    ends = np.cumsum(sizes)
    return [
        bytes(models[start:end])
        for start, end in zip((ends - sizes).tolist(), ends.tolist(), strict=True)
    ]


def is_whole(folder: Path, name: PartName) -> bool:
    """Return whether a part is there with the size and checksum that its name says."""
    return _checked(folder, name) is not None


def list_parts(folder: Path, store_id: str) -> list[PartName]:
    """Return the names of all parts of a store that lie in a folder."""
    if not folder.is_dir():
        return []
    with disk_errors(folder, "read"):
        names = [parse_name(path.name) for path in folder.iterdir()]
    return sorted((name for name in names if name is not None and name.store == store_id), key=str)


def parse_name(text: str) -> PartName | None:
    """Return what a file's name says, or None if it is not a part's."""
    match = _NAME.fullmatch(text)
    if match is None:
        return None
    chunk = tuple(int(index) for index in match["chunk"].split(".") if index)
    numbers = (int(match[key]) for key in ("start", "stop", "first", "last"))
    return PartName(match["store"], Unit(chunk, *numbers), int(match["size"]), match["crc"])


def delete_parts(folder: Path, names: Iterable[PartName]) -> None:
    """Delete parts that a fold has made superfluous."""
    with disk_errors(folder):
        for name in names:
            (folder / str(name)).unlink(missing_ok=True)


def _checked(folder: Path, name: PartName) -> bytes | None:
    path = folder / str(name)
    try:
        with disk_errors(path, "read"):
            content = path.read_bytes()
    except FileNotFoundError:
        return None
    whole = len(content) == name.size and f"{zlib.crc32(content):08x}" == name.crc
    return content if whole else None
