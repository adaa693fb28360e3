"""Data with a map in each chunk: rechunked by workers among themselves, and kept there."""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import xarray as xr
from builders import one_map_a_chunk
from conftest import Spec, small_spec

from hpc_sweep.cli import facts
from hpc_sweep.cli.plan import plan_facts, plan_text
from hpc_sweep.drive import Drive, Progress
from hpc_sweep.errors import PlanError, StoreError
from hpc_sweep.plan import Unit
from hpc_sweep.prepare import Prepared, create, prepare
from hpc_sweep.prepare.rechunking import PEERS_SHARE, Room, rechunked
from hpc_sweep.source import Block, block_reading, open_source
from hpc_sweep.spec import load_spec
from hpc_sweep.store import read_events, run_folder
from hpc_sweep.sweep import execute
from hpc_sweep.work import Context, Exchange, Peers, PeersLostError
from hpc_sweep.work.peers import read_box

VARIABLES = ("wet", "green", "slope")


@pytest.fixture(scope="module")
def maps(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return one_map_a_chunk(data, tmp_path_factory.mktemp("maps") / "maps.zarr")


@pytest.fixture(scope="module")
def well(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the store of the same sweep on data that is chunked well; read only."""
    spec = small_spec(data, tmp_path_factory.mktemp("well") / "well.zarr")
    return execute(load_spec(spec)).store.path


@pytest.fixture
def spec(maps: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Spec:
    """A sweep that rechunks although the data is small: several boxes and blocks a variable."""
    monkeypatch.setattr("hpc_sweep.prepare.rechunking.LEAST_SAVED_S", -1.0)
    monkeypatch.setattr("hpc_sweep.prepare.rechunking.SLAB_BYTES", 7 * 48 * 4)
    monkeypatch.setattr("hpc_sweep.source.tiling.TILE_BYTES", (4000, 4000))
    return by(small_spec(maps, tmp_path / "results.zarr"), "p2p")


def by(spec: Spec, way: str, **cluster: Any) -> Spec:
    return {**spec, "cluster": {**spec["cluster"], "rechunk": way, **cluster}}


def events(spec: Spec) -> list[dict[str, Any]]:
    return list(read_events(run_folder(spec["output"]["store"]).events))


def equal_but_for_chunks(first: Path, second: Path) -> None:
    left, right = (xr.open_zarr(path, chunks=None).load() for path in (first, second))
    for name in set(left.data_vars) - {"fit_time", "score_time"}:
        np.testing.assert_array_equal(left[name], right[name])


# on workers


@pytest.fixture
def preload(tmp_path: Path) -> Callable[[Spec, str], Spec]:
    """Return a function that has each worker run some lines whenever it opens a file."""

    def add(spec: Spec, lines: str) -> Spec:
        module = tmp_path / "seen_by_workers.py"
        module.write_text(
            "import os, sys\n"
            "open_ = os.open\n"
            f"folder = {str(tmp_path)!r}\n"
            "def hook(event, args):\n"
            "    if event == 'open' and isinstance(args[0], str):\n"
            f"        {lines}\n"
            "if not hasattr(sys, 'seen'):  # Dask loads it twice\n"
            "    sys.seen = sys.addaudithook(hook)\n"
        )
        return by(spec, "p2p", options={"preload": [str(module)]})

    return add


def test_each_chunk_is_read_once_in_each_of_two_runs(
    spec: Spec,
    maps: Path,
    well: Path,
    tmp_path: Path,
    preload: Callable[[Spec, str], Spec],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = tmp_path / "opened.txt"
    spec = preload(
        spec,
        f"args[0].startswith({str(maps)!r}) and '/c/' in args[0] and "
        f"os.write(open_({str(log)!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "
        "(args[0] + '\\n').encode())",
    )

    def reads() -> list[str]:
        lines = log.read_text().splitlines()
        log.unlink()
        return sorted(line for line in lines if Path(line).parents[3].name in VARIABLES)

    chunks = sorted(
        str(path) for name in VARIABLES for path in (maps / name).glob("c/*/*/*") if path.is_file()
    )
    assert len(chunks) == 60 * 3
    unit_done, calls = Drive._unit_done, itertools.count()

    def stop_at_a_unit(self: Drive, *about: Any) -> None:
        if next(calls) == 2:  # the first one is the rechunk
            raise RuntimeError("for the test")
        unit_done(self, *about)

    with monkeypatch.context() as patch:
        patch.setattr(Drive, "_unit_done", stop_at_a_unit)
        with pytest.raises(RuntimeError, match="for the test"):
            execute(load_spec(spec))
    assert reads() == chunks
    done = execute(load_spec(spec))
    assert reads() == chunks
    assert done.progress is not None
    assert 0 < done.progress.units < sum(e["event"] == "unit_started" for e in events(spec))
    assert not done.store.run.copy.exists()
    assert "peers_lost" not in {event["event"] for event in events(spec)}
    equal_but_for_chunks(done.store.path, well)


@pytest.mark.parametrize("at", ["/green/c/20/", ".run/parts/"])
def test_a_worker_that_dies_costs_no_more_than_a_copy(
    spec: Spec,
    well: Path,
    preload: Callable[[Spec, str], Spec],
    at: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the middle of the rechunk, and while units work at the blocks."""

    def pace(self: Progress, *about: Any) -> None:
        self.fits_per_second = 300.0 if self.phase == "fitting" else None

    monkeypatch.setattr(Progress, "pace", pace)
    lines: list[str] = []
    once = "os.open(folder + '/died', os.O_CREAT | os.O_EXCL) and os.kill(os.getpid(), 9)"
    check = f"{at!r} in args[0] and not os.path.exists(folder + '/died') and {once}"
    spec = preload(spec, check)
    done = execute(load_spec(spec), on_progress=lambda each: lines.append(facts.line(each)))
    copying = [line for line in lines if line.startswith("copying")]
    assert not [line for line in copying if "slabs/s" in line], "that is the pace of fits"
    begun = lines.index(copying[-1])
    assert not [line for line in lines[begun:] if line.startswith("waiting")], "workers are there"
    seen = [event["event"] for event in events(spec)]
    assert seen.count("peers_lost") == 1
    assert seen.count("slab_done") >= 27, "it went on with a copy"
    assert not done.store.run.copy.exists()
    equal_but_for_chunks(done.store.path, well)


@pytest.mark.parametrize(
    "partitions",
    [["latitude", "longitude"], {"latitude": 6, "longitude": 4}],
    ids=["pixels", "few"],
)
def test_guarded_fits_slices_and_refits_take_blocks_too(
    spec: Spec, tmp_path: Path, partitions: Any
) -> None:
    """Two partitions are cut into slices of candidates, and stay on workers between them."""
    spec["data"] |= {"partition_by": partitions, "holdout": {"time": "2019-03-02T12:00"}}
    lasso = {"estimator": "sklearn.linear_model.Lasso", "param_grid": {"alpha": [0.01, 0.1, 1]}}
    spec["models"] = [lasso]
    whole = by({**spec, "output": {"store": str(tmp_path / "whole.zarr")}}, "never")
    spec["search"] = {**spec["search"], "timeout": 60}
    made = prepare(load_spec(spec))
    assert made.plan.persisted == made.plan.is_sliced == (made.plan.grid.size == 2)
    store = execute(load_spec(spec)).store
    assert "peers_lost" not in {event["event"] for event in events(spec)}
    assert (store.dataset()["holdout_score"] == store.dataset()["holdout_score"]).any()
    equal_but_for_chunks(store.path, execute(load_spec(whole)).store.path)


# the rechunk, one by one


@pytest.fixture
def made(spec: Spec) -> Prepared:
    made = prepare(load_spec(spec))
    assert made.rechunked is not None
    assert made.rechunked.by_peers is not None
    return made


def context_of(made: Prepared) -> Context:
    store = create(made)
    store.run.make()
    text = made.spec.model_dump_json()
    return Context(str(store.path), text, "", 60.0, {}, str(store.run.lease), False)


def test_a_damaged_chunk_is_told(
    made: Prepared, maps: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "damaged.zarr"
    shutil.copytree(maps, place)
    (place / "green" / "c" / "20" / "0" / "0").write_bytes(b"damaged")
    data = made.spec.data.model_copy(update={"store": [str(place)]})
    made = replace(made, spec=made.spec.model_copy(update={"data": data}))
    layouts = {each.name: each for each in made.rechunked.by_peers.layouts}  # type: ignore[union-attr]
    context = context_of(made)
    assert read_box(context, layouts["wet"], (2, 0, 0)).shape == (7, 6, 8)
    with pytest.raises(StoreError, match=r"^time 14 to 20 of 'green' cannot be read"):
        read_box(context, layouts["green"], (2, 0, 0))


class Fake(NamedTuple):
    """Looks like a future."""

    status: str
    error: Exception | None = None

    def exception(self, timeout: float) -> Exception | None:
        return self.error


def exchange() -> Exchange:
    return Exchange(None, None, 1, 1, 1.0)  # type: ignore[arg-type]


def test_nothing_is_waited_for_without_a_limit() -> None:
    blocks: list[Any] = [Fake("finished"), Fake("pending")]
    with pytest.raises(PeersLostError, match="1 of 2 blocks were not in time"):
        exchange()._wait(blocks, time.monotonic() - 1)
    ended = exchange()
    ended.end()
    with pytest.raises(PeersLostError, match="the run ends"):
        ended._wait(blocks, time.monotonic() + 100)
    exchange()._wait(blocks[:1], time.monotonic() - 1)


@pytest.mark.parametrize("status", ["lost", "cancelled"])
def test_what_is_lost_or_fails_ends_it(status: str) -> None:
    blocks: list[Any] = [Fake("pending"), Fake(status)]
    with pytest.raises(PeersLostError, match=f"rechunk failed: {status}"):
        exchange()._wait(blocks, time.monotonic() + 100)
    told: list[Any] = [Fake("error", StoreError("damaged"))]
    with pytest.raises(StoreError, match=r"^damaged"):
        exchange()._wait(told, time.monotonic() + 100)
    blamed: list[Any] = [Fake("error", RuntimeError("P2P failed"))]
    with pytest.raises(PeersLostError, match="RuntimeError: P2P failed"):
        exchange()._wait(blamed, time.monotonic() + 100)


def test_too_few_workers_are_not_begun_with() -> None:
    class Client:
        @staticmethod
        def nthreads() -> dict[str, int]:
            return {"one": 1}

    fake: Any = Client()
    few = Exchange(None, None, 3, 2, 1.0)  # type: ignore[arg-type]
    with pytest.raises(PeersLostError, match="1 workers came, and 2 have the memory"):
        few._wait_for_workers(fake, time.monotonic() - 1)
    replace(few, least_workers=1)._wait_for_workers(fake, time.monotonic() - 1)


def test_a_unit_gets_its_blocks_and_no_others(made: Prepared) -> None:
    way = made.rechunked.by_peers  # type: ignore[union-attr]
    assert way is not None
    peers = Peers(made.source.cut, create(made), way.layouts)
    for layout in way.layouts:
        shape = [len(starts) for starts in layout.starts]
        assert np.prod(shape) > 2
        blocks = np.empty(shape, dtype=object)
        for index in np.ndindex(*shape):
            blocks[index] = Fake("finished")
        peers.keep(layout.name, blocks)
    blocks, futures = peers.of(Unit((0, 0), 0, 1, 0, 5))
    assert len(futures) == len(blocks) == 3
    assert {block.name for block in blocks} == set(VARIABLES)
    assert all(block.starts == (0, 0, 0) for block in blocks)
    peers.check()
    peers._futures["wet", (0, 0, 0)] = Fake("lost")  # type: ignore[assignment]
    with pytest.raises(PeersLostError, match="1 of"):
        peers.of(Unit((0, 0), 0, 1, 0, 5))
    with pytest.raises(PeersLostError, match="1 of"):
        peers.check()


def test_blocks_are_put_together(spec: Spec) -> None:
    source = open_source(load_spec(spec).data)
    wet = source.dataset["wet"].transpose("time", "latitude", "longitude").values
    starts = [(0, 0, 0), (0, 0, 5), (0, 4, 0), (0, 4, 5)]
    stops = [(60, 4, 5), (60, 4, 8), (60, 6, 5), (60, 6, 8)]
    blocks = [
        (Block("wet", (), low), wet[tuple(map(slice, low, high))])
        for low, high in zip(starts, stops, strict=True)
    ]
    reading = block_reading(source, blocks)
    boxes: list[dict[str, Any]] = [
        {},
        {"latitude": slice(1, 3), "longitude": slice(0, 2)},
        {"latitude": slice(3, 6), "longitude": slice(4, 6), "time": np.array([0, 7, 8, 59])},
    ]
    for box in boxes:
        found = reading.read(["wet", "hour"], box)
        for name in ("wet", "hour"):
            expected = source.dataset.variables[name].isel(box, missing_dims="ignore")
            np.testing.assert_array_equal(found[name], expected)
            assert found[name].dims == expected.dims
    with pytest.raises(LookupError, match="blocks of 'wet' hold 1,200 of 2,880 values"):
        block_reading(source, blocks[:1]).read(["wet"], {})


# plan


def room_of(spec: Spec, room: Room, way: Any = "auto") -> Any:
    loaded = load_spec(spec)
    folder = run_folder(spec["output"]["store"]).copy
    return rechunked(open_source(loaded.data), folder, lambda source, kept: 5.0, room, way)


def test_data_of_more_than_its_share_of_memory_is_not_kept(
    spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    nbytes = 3 * 60 * 6 * 8 * 4
    memory = 1_000_000_000
    workers = 2
    monkeypatch.setattr("hpc_sweep.prepare.rechunking.PEERS_SHARE", nbytes / memory / workers)
    assert not room_of(spec, Room(workers, memory, np.inf), "p2p").peers.danger
    with pytest.raises(PlanError, match=r"are more than .* of the 1.0 GB of 2 workers; use auto"):
        room_of(spec, Room(workers, memory - 1, np.inf), "p2p")
    assert room_of(spec, Room(workers, memory - 1, np.inf)).way == "copy"
    assert PEERS_SHARE == 0.4


@pytest.mark.parametrize(
    ("room", "words"),
    [
        (Room(2, None, np.inf), "nobody knows the memory of a worker"),
        (Room(2, 300_020_000, np.inf), "a worker would need"),
        (Room(2, 10**9, None), "nobody knows how long a worker works"),
        (Room(2, 10**9, 100.0), "nobody knows yet whether the run fits"),
        (Room(2, 10**9, 100.0, 101.0), "the run takes about 101 s, and a worker works 100 s"),
        (Room(2, 10**9, 100.0, 50.0), ""),
    ],
)
def test_what_makes_it_unsafe(
    spec: Spec, room: Room, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpc_sweep.prepare.rechunking._missing_bytes", lambda *_: 5)
    found = room_of(spec, room)
    assert words in found.peers.danger
    assert bool(words) == bool(found.peers.danger)
    assert found.way == ("never" if words else "p2p")


def test_plan_says_which_way_and_why(spec: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    def said(way: str) -> str:
        made = prepare(load_spec(by(spec, way)))
        text = plan_text(made, plan_facts(made))
        return next((line for line in text.splitlines() if line.startswith("rechunk:")), "")

    assert "34.6 kB of 3 variables are copied into the run folder first" in said("copy")
    assert "p2p among the workers would take about" in said("auto")
    assert "are rechunked by the workers among themselves first" in said("p2p")
    assert "a copy would take about" in said("p2p")
    monkeypatch.setattr("hpc_sweep.prepare.rechunking._missing_bytes", lambda *_: 5000)
    assert "a copy lacks 5.0 kB on the disk" in said("auto")
    monkeypatch.setattr("hpc_sweep.prepare.rechunking.LEAST_SAVED_S", 1e9)
    assert "are read as they are: directly each chunk is read" in said("auto")
    monkeypatch.setattr("hpc_sweep.prepare.rechunking._missing_bytes", lambda *_: 0)
    assert not said("auto")


def test_a_copy_that_is_begun_is_gone_on_with(spec: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpc_sweep.prepare.rechunking._missing_bytes", lambda *_: 5)
    made = prepare(load_spec(by(spec, "auto")))
    assert made.rechunked is not None
    assert made.rechunked.way == "p2p"
    run_folder(spec["output"]["store"]).make()
    made.rechunked.copy.begin(made.rechunked.source.streams)
    assert prepare(load_spec(by(spec, "auto"))).rechunked.way == "copy"  # type: ignore[union-attr]


def test_what_is_no_matter_of_chunks_is_refused(spec: Spec, data: Path) -> None:
    spec["data"]["features"] = ["wet", "wet@-1"]
    spec["data"]["partition_by"] = ["latitude", "longitude", {"time": "1D"}]
    made = prepare(load_spec(by(spec, "auto")))
    assert made.ways is None or made.ways.peers is None
    spec["data"]["partition_by"] = ["latitude", "longitude"]
    assert prepare(load_spec(spec)).rechunked is not None
    spec["search"] = {**spec["search"], "engine": "dask-ml"}
    with pytest.raises(PlanError, match="searched by the shared engine"):
        prepare(load_spec(spec))
