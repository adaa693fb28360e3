"""Whatever a spec, a profile or a data set holds: one message, no traceback, nothing written.

Some seconds in each run of the tests; many more examples, other ones each time:
``python -m pytest tests/test_fuzz.py --hypothesis-profile long``.
"""

from __future__ import annotations

import contextlib
import copy
import json
import math
import os
import shutil
import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from builders import all_chunks, invent, leave, make_store, whole
from click.testing import CliRunner
from conftest import one_worker, small_spec
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from yearly import in_process

from hpc_sweep.cli import main
from hpc_sweep.errors import SweepError
from hpc_sweep.prediction.execution import predict
from hpc_sweep.spec import MachineProfile, SweepSpec, load_machine, load_spec
from hpc_sweep.store import fold

LONG = settings.get_current_profile_name() == "long"
LIMIT_S = 30
"""An example that takes longer hangs, as far as anybody can tell."""

Json = Any


def fuzzed(count: int) -> settings:
    """Return how many examples are drawn, always the same ones but in the long profile."""
    if LONG:
        return settings(
            max_examples=count * 20,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
    return settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


@contextlib.contextmanager
def at_most(seconds: int = LIMIT_S) -> Iterator[None]:
    """Fail where what is inside takes longer."""

    def late(number: int, frame: object) -> None:
        raise AssertionError(f"this takes longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


# --- what is drawn ---------------------------------------------------------------------------

TEXTS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        [
            "",
            " ",
            "time",
            "latitude",
            "wet",
            "slope",
            "candidate",
            "../../x",
            "~nobody/x",
            "a\nb",
            "\x00",
            "\ud800",
            "x" * 5000,
            "1e400",
            "nan",
            "1GB",
            "-1GB",
            "00:00:00",
            "{mounts}",
            "$HOME",
            "sklearn.linear_model.Ridge",
            "sklearn.model_selection.KFold",
            "os.getcwd",
            "s3://nowhere/x",
            "::",
            "module:function",
        ]
    ),
)
WEIRD = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, -1, 2**31, 2**63, 10**400, -(10**400), 1e308, -0.0, 5e-324]),
    st.sampled_from([math.nan, math.inf, -math.inf]),
    st.integers(),
    st.floats(),
    TEXTS,
    st.lists(TEXTS, max_size=3),
    st.dictionaries(TEXTS, st.one_of(st.integers(-2, 5), TEXTS), max_size=2),
    st.recursive(st.none(), lambda inner: st.lists(inner, max_size=2), max_leaves=5),
)


class Schema:
    """Values as a JSON Schema allows them, in as far as pydantic's schemas say it."""

    def __init__(self, schema: Json) -> None:
        self._schema = schema

    def values(self) -> st.SearchStrategy[Json]:
        """Return what is drawn of the whole schema."""
        return self._of(self._schema, 0)

    def _of(self, schema: Json, depth: int) -> st.SearchStrategy[Json]:
        if "$ref" in schema:
            name = schema["$ref"].rpartition("/")[2]
            return st.deferred(lambda: self._of(self._schema["$defs"][name], depth + 1))
        for key in ("anyOf", "oneOf"):
            if key in schema:
                return st.one_of([self._of(each, depth) for each in schema[key]])
        if "const" in schema:
            return st.just(schema["const"])
        if "enum" in schema:
            return st.sampled_from(schema["enum"])
        kind = schema.get("type")
        known = getattr(self, f"_{kind}", None)
        return WEIRD if known is None else known(schema, depth)

    def _null(self, schema: Json, depth: int) -> st.SearchStrategy[Json]:
        return st.none()

    def _boolean(self, schema: Json, depth: int) -> st.SearchStrategy[Json]:
        return st.booleans()

    def _integer(self, schema: Json, depth: int) -> st.SearchStrategy[Json]:
        low = schema.get("minimum", schema.get("exclusiveMinimum", -3))
        return st.one_of(st.integers(low, low + 10), st.integers(low))

    def _number(self, schema: Json, depth: int) -> st.SearchStrategy[Json]:
        return st.floats(schema.get("minimum", schema.get("exclusiveMinimum", -9)), 1e9)

    def _string(self, schema: Json, depth: int) -> st.SearchStrategy[Json]:
        if "pattern" in schema:
            return st.from_regex(schema["pattern"])
        return TEXTS

    def _array(self, schema: Json, depth: int) -> st.SearchStrategy[Json]:
        least = schema.get("minItems", 0)
        items = self._of(schema.get("items", {}), depth + 1)
        return st.lists(items, min_size=least, max_size=least + 2)

    def _object(self, schema: Json, depth: int) -> st.SearchStrategy[Json]:
        needed = schema.get("required", ())
        parts = {
            name: self._of(each, depth + 1) for name, each in schema.get("properties", {}).items()
        }
        if not parts:
            inner = schema.get("additionalProperties")
            values = self._of(inner, depth + 1) if isinstance(inner, dict) else WEIRD
            return st.dictionaries(TEXTS, values, max_size=2)
        optional = {name: each for name, each in parts.items() if name not in needed}

        @st.composite
        def some(draw: st.DrawFn) -> Json:
            names = draw(st.lists(st.sampled_from(sorted(optional)), max_size=4, unique=True))
            return {name: draw(parts[name]) for name in [*needed, *names]}

        return some() if optional else st.fixed_dictionaries(parts)


def places(value: Json, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of everything inside a value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in inside:
        yield (*path, key)
        if isinstance(item, (dict, list)):
            yield from places(item, (*path, key))


@st.composite
def mutations(draw: st.DrawFn, value: Json, most: int = 2) -> Json:
    """Draw a value in which something was removed, misspelt, replaced, doubled or moved."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, most))):
        known = list(places(value))
        if not known:
            break
        *path, last = draw(st.sampled_from(known))
        parent = value
        for key in path:
            parent = parent[key]
        how = draw(st.sampled_from(["remove", "rename", "weird", "weird", "wrap", "swap"]))
        if how == "remove":
            del parent[last]
        elif how == "rename" and isinstance(parent, dict):
            parent[f"{last}"[:-1] + draw(st.sampled_from(["", "x", "ss"]))] = parent.pop(last)
        elif how == "wrap":
            parent[last] = draw(st.sampled_from([[parent[last]], {"x": parent[last]}]))
        elif how == "swap":
            other = value
            for key in draw(st.sampled_from(known)):
                with contextlib.suppress(LookupError, TypeError):
                    other = other[key]
            parent[last] = copy.deepcopy(other)
        else:
            parent[last] = draw(WEIRD)
    return value


# --- what must hold --------------------------------------------------------------------------


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Return what lies in a folder, with sizes and times."""
    return {
        str(path.relative_to(folder)): (path.lstat().st_size, path.lstat().st_mtime_ns)
        for path in folder.rglob("*")
        if not path.is_dir()
    }


def refused_or_fine(call: Callable[[], object]) -> None:
    """Fail where something else is raised than the package's own errors, or it hangs."""
    with at_most(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            call()
        except SweepError as raised:
            told = raised
        else:
            return
    assert told.exit_code != 1, told
    assert str(told).strip()


def one_message(*arguments: object) -> None:
    """Fail where a command ends with a fault of ours, or without a message."""
    with at_most(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = CliRunner().invoke(main, ["--debug", *map(str, arguments)])
    assert result.exit_code in (0, 2, 3, 4), result.output
    assert result.exit_code in (0, 4) or "error: " in result.output or "fault" in result.output


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return an empty folder, which is the working folder meanwhile."""
    folder = tmp_path_factory.mktemp("fuzz")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
        yield folder


@fuzzed(60)
@given(
    Schema(SweepSpec.model_json_schema())
    .values()
    .flatmap(lambda raw: st.one_of(st.just(raw), mutations(raw)))
)
def test_specs_of_the_schema(here: Path, raw: Json) -> None:
    before = tree(here)
    refused_or_fine(lambda: load_spec(raw))
    assert tree(here) == before


@fuzzed(30)
@given(
    raw=Schema(MachineProfile.model_json_schema())
    .values()
    .flatmap(lambda raw: st.one_of(st.just(raw), mutations(raw)))
)
def test_machine_profiles(here: Path, raw: Json) -> None:
    file = here / "config" / "hpc-sweep" / "machines" / "here.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(raw))  # which is YAML
    before = tree(here)
    refused_or_fine(lambda: load_machine("here"))
    plain = small_spec(here / "data.zarr", here / "results.zarr")
    refused_or_fine(lambda: load_spec({**plain, "cluster": {"machine": "here"}}))
    assert tree(here) == before


FULL: Json = {
    "data": {
        "store": "",
        "features": ["wet", {"window": {"of": "green", "size": 3}}, "hour"],
        "target": "slope",
        "partition_by": ["latitude", {"longitude": 2}],
        "sample_dims": ["time"],
        "holdout": {"time": "2019-03-02"},
        "dtype": "float64",
    },
    "models": [
        {"estimator": "sklearn.linear_model.Ridge", "param_grid": {"alpha": [0.1, 1]}},
        {
            "pipeline": ["sklearn.preprocessing.StandardScaler", {"sklearn.svm.SVR": {"C": 2}}],
            "param_grid": [{"svr__epsilon": [0.1]}, {"svr__kernel": ["rbf", "linear"]}],
        },
    ],
    "search": {"strategy": "grid", "cv": 3, "scoring": ["r2", "max_error"], "refit": "r2"},
    "cluster": {"kind": "local", "workers": 2, "memory": "1GB", "performance_report": False},
    "output": {"store": "", "max_files": 500},
}
SEARCHES: list[Json] = [
    {"strategy": "random", "n_iter": 3, "seed": 1},
    {"strategy": "halving", "factor": 2, "cv": {"leave_one_group_out": "time.day"}},
    {"strategy": "optuna", "n_trials": 3},
    {"cv": {"class": "sklearn.model_selection.TimeSeriesSplit", "n_splits": 3}, "timeout": 9},
]


@st.composite
def sound_specs(draw: st.DrawFn) -> Json:
    """Draw a spec that is fine, or nearly so."""
    raw = copy.deepcopy(FULL)
    if draw(st.booleans()):
        raw["search"] |= draw(st.sampled_from(SEARCHES))
    if draw(st.booleans()):
        del raw["data"]["holdout"]
    if draw(st.booleans()):
        raw["data"]["partition_by"] = draw(
            st.sampled_from([["zone"], ["latitude"], {"time": "day"}])
        )
    return raw


@fuzzed(25)
@given(raw=sound_specs().flatmap(mutations))
def test_plans_of_changed_specs(here: Path, data: Path, raw: Json) -> None:
    """With real data, estimators and cross-validation behind them."""
    for section, name in (("data", data), ("output", here / "results.zarr")):
        if isinstance(raw.get(section), dict) and raw[section].get("store") == "":
            raw[section]["store"] = str(name)
    file = here / "sweep.yaml"
    file.write_text(json.dumps(raw))
    before = tree(here), tree(data)
    one_message("plan", file)
    assert (tree(here), tree(data)) == before


@fuzzed(40)
@given(st.data())
def test_texts_that_are_nearly_specs(here: Path, drawn: st.DataObject) -> None:
    text = bytearray(json.dumps(FULL, indent=1).replace('"', "").encode())
    for _ in range(drawn.draw(st.integers(1, 4))):
        place = drawn.draw(st.integers(0, len(text) - 1))
        text[place : place + drawn.draw(st.integers(0, 3))] = drawn.draw(
            st.one_of(
                st.binary(max_size=3), st.sampled_from([b"&a ", b"*a", b"!!x ", b"- ", b"\t"])
            )
        )
    file = here / "text.yaml"
    file.write_bytes(text)
    refused_or_fine(lambda: load_spec(file))


@fuzzed(40)
@given(st.lists(st.tuples(TEXTS, WEIRD), max_size=3))
def test_settings(here: Path, pairs: list[tuple[str, Json]]) -> None:
    plain = small_spec(here / "data.zarr", here / "results.zarr")
    refused_or_fine(lambda: load_spec(plain, [f"{key}={value}" for key, value in pairs]))


# --- data ------------------------------------------------------------------------------------

DTYPES = ("f4", "f8", "i2", "u1", "bool", "M8[ns]", "m8[ns]", "c8", "U3", "f2")
DIMS = ("y", "x", "time")


def _quietly(make: Callable[[], Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make()


@st.composite
def datasets(draw: st.DrawFn) -> tuple[xr.Dataset, int, dict[str, Json]]:
    """Draw a data set of any structure, the zarr format to write it in, and its chunks."""
    sizes = {dim: draw(st.sampled_from([1, 2, 3, 5, 12, 0])) for dim in DIMS}
    rng = np.random.default_rng(draw(st.integers(0, 9)))

    def variable(dims: list[str]) -> tuple[list[str], Any]:
        shape = [sizes[dim] for dim in dims]
        values = rng.normal(size=shape) * draw(st.sampled_from([1, 1, 1, 0, 1e30, np.nan]))
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            kind = draw(st.sampled_from(DTYPES if draw(st.booleans()) else DTYPES[:2]))
            if kind.startswith(("M", "m")):
                return dims, (np.nan_to_num(values) * 1e9).astype("i8").astype(kind)
            return dims, np.asarray(values).astype(kind)

    some_dims = st.lists(st.sampled_from(DIMS), unique=True, max_size=3)
    made = {name: variable(draw(some_dims)) for name in "abc" if draw(st.integers(0, 9))}
    coords = {dim: variable([dim]) for dim in DIMS if draw(st.booleans())}
    if draw(st.booleans()):
        coords["label"] = variable(draw(some_dims))
    if draw(st.booleans()) and sizes["time"]:
        coords["time"] = (
            ["time"],
            np.arange(sizes["time"]) * np.timedelta64(1, "h") + np.datetime64("2019-03-01", "ns"),
        )
    attrs = draw(
        st.dictionaries(
            st.sampled_from(["units", "_FillValue", "coordinates", "note"]),
            st.sampled_from(["days since x", "", "1"]),
            max_size=1,
        )
    )
    attrs.pop("_FillValue", None)
    dataset = _quietly(lambda: xr.Dataset(made, coords, attrs))
    chunks = {dim: draw(st.integers(1, 6)) for dim in DIMS}
    return dataset, draw(st.sampled_from([2, 3])), chunks


DIM_NAMES = st.sampled_from([*DIMS, "label", "a", "nothing"])


@fuzzed(30)
@given(
    drawn=datasets(),
    features=st.lists(
        st.sampled_from(["a", "b", "c", "x", "nothing"]), min_size=1, max_size=3, unique=True
    ),
    target=st.sampled_from(["a", "b", "c", "time", ["b", "c"]]),
    by=st.lists(DIM_NAMES, max_size=2, unique=True),
    samples=st.one_of(st.none(), st.lists(DIM_NAMES, max_size=2, unique=True)),
    holdout=st.sampled_from([None, None, {"time": "2019-03-01"}, {"x": 1}, "label"]),
    spoil=st.sampled_from([None, None, None, "remove", "cut", "flip"]),
    data_=st.data(),
)
def test_plans_of_any_data(
    here: Path,
    drawn: Any,
    features: list[str],
    target: Any,
    by: list[str],
    samples: Any,
    holdout: Any,
    spoil: str | None,
    data_: st.DataObject,
) -> None:
    dataset, zarr_format, chunks = drawn
    store = here / "any.zarr"
    shutil.rmtree(store, ignore_errors=True)
    encoding = {
        str(name): {"chunks": [min(chunks[str(d)], max(1, dataset.sizes[d])) for d in v.dims]}
        for name, v in dataset.variables.items()
        if v.dims
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            dataset.to_zarr(store, zarr_format=zarr_format, encoding=encoding, consolidated=False)
        except (ValueError, TypeError, NotImplementedError, OverflowError):
            return  # what cannot be written is nobody's data
    if spoil:
        hurt(store, spoil, data_)
    raw = {
        "data": {
            "store": str(store),
            "features": features,
            "target": target,
            **({"partition_by": by} if by else {}),
            **({} if samples is None else {"sample_dims": samples}),
            **({} if holdout is None else {"holdout": holdout}),
        },
        "models": [{"estimator": "sklearn.linear_model.Ridge"}],
        "search": {"cv": 3},
        "cluster": {"kind": "local", "workers": 1, "memory": "1GB", "performance_report": False},
        "output": {"store": str(here / "results.zarr")},
    }
    file = here / "sweep.yaml"
    file.write_text(json.dumps(raw))
    before = tree(here)
    one_message("plan", file)
    assert tree(here) == before


def hurt(folder: Path, how: str, drawn: st.DataObject) -> None:
    """Damage one file below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    file = drawn.draw(st.sampled_from(files))
    if how == "remove":
        file.unlink()
    elif how == "cut":
        os.truncate(file, drawn.draw(st.integers(0, file.stat().st_size)))
    elif content := bytearray(file.read_bytes()):
        content[drawn.draw(st.integers(0, len(content) - 1))] ^= 1 << drawn.draw(st.integers(0, 7))
        file.write_bytes(content)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a finished store."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        store = make_store(folder)
        truth = invent(store)
        for chunk in all_chunks(store):
            fold(store, chunk, [leave(store, truth, whole(store, chunk))])
    return folder


@pytest.fixture(scope="module")
def predicted(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of finished predictions and their run folder."""
    folder = tmp_path_factory.mktemp("predicted")
    in_process(small_spec(data, folder / "results.zarr"))
    place = folder / "predictions" / "results.zarr"
    place.parent.mkdir()
    with one_worker() as settings:
        predict(folder / "results.zarr", data, place, settings)
    return place.parent


HARMS = st.lists(st.sampled_from(["remove", "cut", "flip"]), min_size=1, max_size=3)


@fuzzed(25)
@given(hows=HARMS, data_=st.data())
def test_damaged_stores(here: Path, finished: Path, hows: list[str], data_: st.DataObject) -> None:
    """What looks at a store tells what is wrong with it, and changes nothing."""
    look_at_damage(here, finished, hows, data_, ("status", "verify", "results"))


@fuzzed(25)
@given(hows=HARMS, data_=st.data())
def test_damaged_predictions(
    here: Path, predicted: Path, hows: list[str], data_: st.DataObject
) -> None:
    look_at_damage(here, predicted, hows, data_, ("status", "verify"))


def look_at_damage(
    here: Path, sound: Path, hows: list[str], drawn: st.DataObject, commands: Sequence[str]
) -> None:
    """Damage a copy of a store and its run folder, and run commands that only look."""
    folder = here / "damaged"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(sound, folder)
    for how in hows:
        hurt(folder, how, drawn)
    before = tree(folder)
    for command in commands:
        one_message(command, folder / "results.zarr")
    assert tree(folder) == before
