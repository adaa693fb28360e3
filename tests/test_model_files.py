"""Models stored beside a store: whole after any kill, trusted by name only."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from faulty import Faulty
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import Ridge
from yearly import SHAPE, TREE, InProcess, Spec, faults, samples, write, yearly_spec, years_data
from yearly import arrays as arrays_of

import hpc_sweep
from hpc_sweep import serialization, versions
from hpc_sweep.cli.plan import plan_facts, plan_text
from hpc_sweep.errors import StoreError
from hpc_sweep.keeping import verify
from hpc_sweep.models import check_models, open_models
from hpc_sweep.prepare import begin, prepare, rank_anew
from hpc_sweep.serialization import from_bytes, to_bytes, untrusted
from hpc_sweep.serialization.trusted import TRUSTED
from hpc_sweep.spec import load_spec
from hpc_sweep.store import (
    Ledger,
    ModelFile,
    ModelFiles,
    Store,
    fold,
    modelfile,
    models_folder,
    remove_other_models,
    run_folder,
)
from hpc_sweep.work import open_bench

RIDGE = {"estimator": "sklearn.linear_model.Ridge", "param_grid": {"alpha": [0.1, 1, 10]}}
EVERY = np.array(list(np.ndindex(*SHAPE)))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here is about power cuts."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    made = years_data()
    made.attrs["path"] = write(made, tmp_path_factory.mktemp("years") / "data.zarr")
    return made


def make_spec(data: xr.Dataset, results: Path, kind: str = "skops") -> Spec:
    spec = yearly_spec(data.attrs["path"], results)
    spec["search"]["cv"] = 3
    spec["models"] = [RIDGE, *spec["models"]]
    spec["output"]["models"] = kind
    return spec


@pytest.fixture
def spec(data: xr.Dataset, tmp_path: Path) -> Spec:
    return make_spec(data, tmp_path / "results.zarr")


@pytest.fixture(scope="module")
def made(data: xr.Dataset, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Return a finished store with models by skops; read only."""
    sweep = InProcess(make_spec(data, tmp_path_factory.mktemp("made") / "results.zarr"))
    sweep.run()
    return sweep.store


@pytest.fixture
def store(made: Store, tmp_path: Path) -> Store:
    """Return a copy of it."""
    for path in (made.path, made.run.path, models_folder(made)):
        shutil.copytree(path, tmp_path / path.name)
    return Store.open(tmp_path / made.path.name)


def weights(model: Any) -> Any:
    """Return what a model has learnt."""
    if model is None:
        return None
    return model.tree_.threshold if hasattr(model, "tree_") else model.coef_


def equal_models(one: Store, other: Store, trust: tuple[str, ...] = ()) -> None:
    pairs = zip(*(open_models(each, trust=trust).of(EVERY) for each in (one, other)), strict=True)
    n_models = 0
    for left, right in pairs:
        assert type(left) is type(right)
        np.testing.assert_array_equal(weights(left), weights(right))
        n_models += left is not None
    assert n_models >= 10


def go_on(spec: Spec) -> Store:
    """Do what the command would do with a store that is there, in this process."""
    prepared = prepare(load_spec(spec))
    store = begin(prepared)
    ledger = Ledger.read(store)
    rank_anew(ledger, lambda: None)
    sweep = object.__new__(InProcess)
    sweep.prepared, sweep.store, sweep.width = prepared, store, store.strategy.n_columns
    sweep.bench = open_bench(
        str(store.path), prepared.spec.model_dump_json(), store.header.revision
    )
    for chunk in [each for each in ledger.chunks if each not in ledger.folded]:
        covered = ledger.covered(chunk)
        for unit in prepared.plan.units(chunk, covered):
            ledger.add(sweep.leave(unit))
        while lacking := ledger.fold(chunk, fold(store, chunk, ledger.parts.get(chunk, [])), 2):
            for unit in lacking:
                ledger.add(sweep.leave(unit, list(ledger.parts.get(chunk, []))))
    assert Ledger.read(store).is_complete
    return store


# what is stored


@pytest.mark.parametrize("width", [None, 2])
def test_models_are_those_on_demand_and_need_no_data(
    made: Store, spec: Spec, data: xr.Dataset, tmp_path: Path, width: int | None
) -> None:
    copied = Path(shutil.copytree(data.attrs["path"], tmp_path / "data.zarr"))
    spec["data"]["store"] = str(copied)
    sweep = InProcess(spec, width)
    results = sweep.run()
    equal_models(sweep.store, made)
    on_demand = go_on({**spec, "output": {**spec["output"], "models": "on_demand"}})
    assert not models_folder(on_demand).exists()
    equal_models(on_demand, made)
    again = go_on(spec)
    open_bench.cache_clear()
    shutil.rmtree(copied)
    equal_models(again, made)
    place = results.isel(latitude=1, longitude=1)
    model = hpc_sweep.load_model(again.path, latitude=59.75, longitude=-0.75)
    X, _ = arrays_of(samples(data, (1, 1)))
    assert np.isfinite(model.predict(X)).all()
    assert int(place["best_index"]) >= 0


def test_one_file_a_result_chunk_without_orphans(made: Store) -> None:
    files = ModelFiles.of(made)
    assert files is not None
    shape = made.grid.chunk_grid(made.header.chunks)
    expected = {files.path(chunk) for chunk in np.ndindex(*shape)}
    assert set(models_folder(made).iterdir()) == expected
    checked = check_models(made)
    assert checked.faults == []
    assert verify(made.path).findings == []
    assert checked.n_files == len(expected)
    assert checked.n_models == int((made.dataset()["best_index"] >= 0).sum())


def test_joblib_is_loaded_by_word_only(data: xr.Dataset, made: Store, tmp_path: Path) -> None:
    sweep = InProcess(make_spec(data, tmp_path / "j.zarr", "joblib"))
    sweep.run()
    with pytest.raises(StoreError, match=r"pickle of joblib: .*runs whatever.*trust=\['joblib'\]"):
        hpc_sweep.load_model(sweep.store.path, latitude=60.0, longitude=-1.0)
    equal_models(sweep.store, made, trust=("joblib",))
    assert check_models(sweep.store).faults == []


def test_whoever_chooses_pickles_is_told(data: xr.Dataset, tmp_path: Path) -> None:
    def told(models: str) -> list[str]:
        said: list[str] = []
        prepared = prepare(load_spec(make_spec(data, tmp_path / "told.zarr", models)))
        warns = "runs whatever code" in plan_text(prepared, plan_facts(prepared))
        assert warns == (models == "joblib")
        run_folder(prepared.spec.output.store).make()
        begin(prepared, say=said.append)
        return said

    assert [told(models) for models in ("skops", "on_demand")] == [[], []]
    assert ["runs whatever code" in text for text in told("joblib")] == [True]
    assert told("joblib") == []  # once


def test_double_parts_and_a_killed_fold_change_nothing(
    spec: Spec, made: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = InProcess(spec)
    write_array = Store.write

    def killed(self: Store, what: Any, *arguments: Any, **more: Any) -> None:
        write_array(self, what, *arguments, **more)
        if what.name == "best_index":
            raise KeyboardInterrupt

    ledger = Ledger(sweep.store)
    for chunk in ledger.chunks:
        (unit,) = sweep.units(chunk)
        names = [sweep.leave(unit), sweep.leave(replace(unit, stop=unit.start + 1))]
        with monkeypatch.context() as patch:
            patch.setattr(Store, "write", killed)
            with pytest.raises(KeyboardInterrupt):
                fold(sweep.store, chunk, names)
    again = Ledger.read(sweep.store)
    for chunk in [*again.complete()]:
        assert again.fold(chunk, fold(sweep.store, chunk, again.parts[chunk])) == []
    assert again.is_complete
    equal_models(sweep.store, made)
    assert check_models(sweep.store).faults == []


def test_what_a_killed_writer_left_goes(store: Store) -> None:
    folder = models_folder(store)
    before = set(folder.iterdir())
    for name in (".0.0.skops.1234.tmp", "0.0.joblib", "9.9.skops"):
        (folder / name).write_bytes(b"x")
    (folder / "mine.txt").write_text("stays")
    remove_other_models(store)
    assert set(folder.iterdir()) == {*before, folder / "mine.txt"}


def test_other_candidates_have_other_models(spec: Spec, data: xr.Dataset, tmp_path: Path) -> None:
    """Added and dropped ones."""
    tree = {"estimator": TREE, "param_grid": {"max_depth": [2], "random_state": [0]}}
    spec["models"] = [tree]
    InProcess(spec).run()
    both = {**spec, "models": [tree, RIDGE]}
    store = go_on(both)
    direct = InProcess({**both, "output": {**spec["output"], "store": str(tmp_path / "d.zarr")}})
    direct.run()
    equal_models(store, direct.store)
    assert "Ridge" in {type(model).__name__ for model in open_models(store).of(EVERY)}
    store = go_on(spec)
    kinds = {type(model).__name__ for model in open_models(store).of(EVERY)}
    assert kinds == {"NoneType", "DecisionTreeRegressor"}
    assert check_models(store).faults == []


def test_blocks_on_all_workers_are_not_stored(spec: Spec) -> None:
    spec["models"] = [
        {"estimator": "sklearn.linear_model.SGDRegressor", "param_distributions": {"alpha": [1]}}
    ]
    spec["search"] = {"strategy": "incremental", "n_initial_parameters": 1}
    assert "on_demand trains them" in faults(spec)["output.models"]


# damage


def chunk_file(store: Store) -> Path:
    return sorted(models_folder(store).iterdir())[0]


def cut_short(content: bytes) -> bytes:
    return content[:-5]


def turn_a_bit(content: bytes) -> bytes:
    return content[:100] + bytes([content[100] ^ 1]) + content[101:]


def turn_a_bit_of_the_index(content: bytes) -> bytes:
    place = len(content) - 100
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (cut_short, "does not end as a file of models does"),
        (turn_a_bit, "checksum of model . is another"),
        (turn_a_bit_of_the_index, "checksum of its index"),
        (lambda content: b"", "it has 0 bytes"),
        (None, "is missing, which has models"),
    ],
)
def test_damage_is_told_and_mended(
    store: Store, made: Store, spec: Spec, change: Callable[[bytes], bytes] | None, words: str
) -> None:
    path = chunk_file(store)
    if change is None:
        path.unlink()
    else:
        path.write_bytes(change(path.read_bytes()))
    remedy = f"delete {path} and run the sweep's command again"
    with pytest.raises(StoreError, match=words) as caught:
        open_models(store).of(EVERY)
    assert remedy in str(caught.value)
    (fault,) = check_models(store).faults
    assert (fault.file, fault.remedy[: len(remedy)]) == (str(path), remedy)
    (finding,) = verify(store.path).findings
    assert (finding.file, finding.fault) == (fault.file, fault.fault)
    path.unlink(missing_ok=True)
    equal_models(go_on(spec), made)


def crafted(path: Path, index: Any, header: bytes = b'{"versions": [{}]}') -> None:
    """Write a file whose checksums are right."""
    end = np.asarray(index, dtype="<i8").tobytes() + header
    trailer = modelfile._TRAILER.pack(
        len(end) - len(header), len(header), zlib.crc32(end), modelfile.MAGIC
    )
    path.write_bytes(b"model" + end + trailer)


@pytest.mark.parametrize(
    "row",
    [
        (0, 2**62, 0, 0, 0),
        (2**62, 2**62, 0, 0, 0),
        (-5, 5, 0, 0, 0),
        (4, 2, 0, 0, 0),
        (0, -1, 0, 0, 0),
        (0, 5, 0, 0, 1),
        (0, 5, 0, 0, -1),
    ],
)
def test_a_crafted_index_reaches_nowhere(tmp_path: Path, row: tuple[int, ...]) -> None:
    crafted(tmp_path / "0.skops", [row])
    with pytest.raises(StoreError, match="its index points outside of it; do this"):
        ModelFile(tmp_path / "0.skops", 1, "do this")


@pytest.mark.parametrize("header", [b"[]", b"{", b'{"versions": 3}', b"x" * 2_000_000])
def test_a_crafted_header_is_told(tmp_path: Path, header: bytes) -> None:
    crafted(tmp_path / "0.skops", [(0, 5, 0, 0, 0)], header)
    with pytest.raises(StoreError, match=r"its header is none|its index is not that"):
        ModelFile(tmp_path / "0.skops", 1, "do this")


def test_sizes_of_a_trailer_take_no_memory(tmp_path: Path) -> None:
    for sizes in ((2**62, 10), (40, 2**62), (-40, 10), (40, -1), (0, 10)):
        trailer = modelfile._TRAILER.pack(*sizes, 0, modelfile.MAGIC)
        (tmp_path / "0.skops").write_bytes(b"x" * 100 + trailer)
        with pytest.raises(StoreError, match="its index is not that of 1 partitions"):
            ModelFile(tmp_path / "0.skops", 1, "do this")


def test_models_of_another_store_are_not_taken(store: Store, made: Store, spec: Spec) -> None:
    """Such as those that were left when a store was deleted and made anew."""
    shutil.rmtree(store.path)
    shutil.rmtree(store.run.path)
    sweep = InProcess(spec)
    with pytest.raises(StoreError, match="has models of another store"):
        ModelFiles(sweep.store, "skops").open((0, 0))
    sweep.run()
    equal_models(sweep.store, made)


# trust


class Harm:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch '{self.path}'",)


def put(store: Store, content: bytes) -> None:
    """Put content in the place of all models of a store, with checksums that are right."""
    for path in models_folder(store).iterdir():
        chunk = tuple(int(part) for part in path.name.split(".")[:2])
        n_partitions = store.n_partitions(chunk)
        known = ModelFile(path, n_partitions, "")
        rows = np.flatnonzero(known.candidates() >= 0)
        kept = modelfile.Kept(
            rows,
            np.zeros(len(rows), dtype=int),
            known.candidates()[rows],
            [{}] * len(rows),
            lambda: [content],
        )
        about = {key: value for key, value in known.header.items() if key != "versions"}
        modelfile.write_models(path, about, n_partitions, [kept])


def skops_of(call: str, argument: str) -> bytes:
    """Return a file of skops that calls a function when it is made into an object."""
    module, _, name = call.rpartition(".")
    node = {"__module__": "builtins", "__id__": 1}
    text = {**node, "__class__": "str", "__loader__": "JsonNode", "__id__": 3}
    text |= {"content": json.dumps(argument), "is_json": True}
    state = {
        "__class__": name,
        "__module__": module,
        "__loader__": "ConstructorFromReduceNode",
        "__id__": 1,
        "content": {
            **node,
            "__class__": "tuple",
            "__loader__": "TupleNode",
            "__id__": 2,
            "content": [text],
        },
        "protocol": 2,
        "_skops_version": "0.13",
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("schema.json", json.dumps(state))
    return buffer.getvalue()


def test_a_malicious_model_does_not_execute(store: Store, tmp_path: Path) -> None:
    harm = tmp_path / "harm"
    genuine = to_bytes(Ridge().fit([[0.0], [1.0]], [0.0, 1.0]), "skops")
    with zipfile.ZipFile(io.BytesIO(genuine)) as file:
        schema = json.loads(file.read("schema.json"))
    swapped = io.BytesIO()
    with zipfile.ZipFile(swapped, "w") as file:
        file.writestr(
            "schema.json", json.dumps({**schema, "__class__": "system", "__module__": "os"})
        )
    contents = {
        "system": skops_of("os.system", f"touch '{harm}'"),
        "posix": skops_of("posix.system", f"touch '{harm}'"),
        "eval": skops_of("builtins.eval", f"open('{harm}', 'w')"),
        "swapped": swapped.getvalue(),
        "pickle": pickle.dumps(Harm(harm)),
        "joblib": to_bytes(Harm(harm), "joblib"),
        "zip": b"PK\x05\x06" + bytes(18),
    }
    for name, content in contents.items():
        put(store, content)
        with pytest.raises(StoreError) as caught:
            hpc_sweep.load_model(store.path, latitude=60.0, longitude=-1.0)
        assert "0.0.skops" in str(caught.value)
        assert ("nobody said are to be trusted" in str(caught.value)) == (
            name in ("system", "posix", "eval")
        )
        check_models(store)
    assert not harm.exists()
    from_bytes(contents["system"], "skops", ["os.system"], "it")
    assert harm.exists()  # it would have done harm


def record_models(store: Store, kind: str) -> None:
    """Record that models are kept so, and that everything in them may be trusted."""
    output = store.spec.output.model_copy(update={"models": kind, "trust": ["os.system", "joblib"]})
    store.record_spec(store.spec.model_copy(update={"output": output}))


def test_a_store_cannot_trust_itself(store: Store, tmp_path: Path) -> None:
    """What its spec says is the word of whoever made it."""
    harm = tmp_path / "harm"
    put(store, skops_of("os.system", f"touch '{harm}'"))
    record_models(store, "skops")
    with pytest.raises(StoreError, match=r"'os.system'"):
        hpc_sweep.load_model(store.path, latitude=60.0, longitude=-1.0)
    record_models(store, "joblib")
    for path in models_folder(store).iterdir():
        path.rename(path.with_suffix(".joblib"))
    put(store, to_bytes(Harm(harm), "joblib"))
    with pytest.raises(StoreError, match="pickle of joblib"):
        hpc_sweep.load_model(store.path, latitude=60.0, longitude=-1.0)
    assert not harm.exists()


def test_a_users_type_needs_the_users_word(spec: Spec) -> None:
    spec["models"] = [{"estimator": {"faulty.Faulty": {"how": "nothing"}}}]
    with pytest.raises(StoreError, match=r"not scikit-learn's own: faulty.Faulty.*output.trust"):
        InProcess(spec).run()
    shutil.rmtree(spec["output"]["store"])
    spec["output"]["trust"] = ["faulty.Faulty"]
    sweep = InProcess(spec)
    sweep.run()
    place = {"latitude": 60.0, "longitude": -1.0}
    with pytest.raises(StoreError, match=r"'faulty.Faulty'.*trust=\[…\].*--trust NAME"):
        hpc_sweep.load_model(sweep.store.path, **place)
    for trust in (["faulty.Faulty"], "faulty.Faulty"):
        assert isinstance(hpc_sweep.load_model(sweep.store.path, trust=trust, **place), Faulty)


def test_what_cannot_be_stored_says_why(spec: Spec, data: xr.Dataset) -> None:
    """And is told by `load_model`, while the partition keeps its other results."""
    spec["models"] = [{"estimator": "sklearn.cluster.Birch"}]
    spec["search"]["scoring"] = {"zero": f"{__name__}:zero"}
    sweep = InProcess(spec)
    results = sweep.run()
    message = str(results["refit_message"].isel(latitude=0, longitude=0).values)
    assert message.startswith("skops cannot store it: UnsupportedTypeException")
    with pytest.raises(StoreError, match="best model cannot be had: skops cannot store it"):
        hpc_sweep.load_model(sweep.store.path, latitude=60.0, longitude=-1.0)
    checked = check_models(sweep.store)
    assert (checked.faults, checked.n_models) == ([], 0)
    assert checked.n_unstored == int((results["best_index"] >= 0).sum())


def zero(estimator: Any, X: Any, y: Any) -> float:
    return 0.0


def test_scikit_learns_own_are_trusted_by_name() -> None:
    X = np.random.default_rng(0).normal(size=(30, 2))
    forest = RandomForestRegressor(n_estimators=2).fit(X, X[:, 0])
    content = to_bytes(forest, "skops")
    assert untrusted(content, ()) == []
    np.testing.assert_array_equal(
        from_bytes(content, "skops", (), "it").predict(X), forest.predict(X)
    )
    assert len(set(TRUSTED)) == len(TRUSTED)
    assert all(name.split(".")[0] in ("sklearn", "numpy", "scipy") for name in TRUSTED)


# versions


def test_another_version_is_warned_of_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "installed", lambda library: "99.1.0")
    with pytest.warns(UserWarning, match=r"here is scikit-learn 99.1.0 instead of ") as told:
        open_models(store).of(EVERY)
    assert len(told) == 1
    assert serialization.made_with("skops").keys() == {"scikit-learn", "numpy", "scipy", "skops"}
