"""What commands say of a place that has no store of a sweep: what is there, and what helps."""

from __future__ import annotations

import json
import zipfile
from dataclasses import asdict
from pathlib import Path

import pytest
import zarr
from builders import make_store
from click.testing import CliRunner, Result

from hpc_sweep.cli import main
from hpc_sweep.store import ATTRIBUTE, Job, PredictionHeader, packed, predictions, run_folder
from hpc_sweep.watching import Watching

COMMANDS = ("status", "results", "report", "verify", "archive", "cancel", "predict")


def invoke(*words: object) -> Result:
    return CliRunner().invoke(main, list(map(str, words)))


def spoil(store: Path, **facts: object) -> Path:
    """Change the header of a store."""
    file = store / "zarr.json"
    content = json.loads(file.read_text())
    known = json.loads(content["attributes"][ATTRIBUTE])
    del known["crc32c"]
    content["attributes"][ATTRIBUTE] = packed({**known, **facts})
    file.write_text(json.dumps(content))
    return store


def predicted(place: Path, **facts: object) -> Path:
    """Make what `hpc-sweep predict` begins with, without its arrays."""
    job = Job("a", "b", "c", "all", proba=False)
    header = PredictionHeader("id", job, "small", "/models/small.zarr", ("y",), (4,), (2,), {})
    text = json.dumps({**asdict(header), **facts})
    zarr.create_group(place, attributes={predictions.ATTRIBUTE: text})
    return place


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return what may lie where a store should, by what is said of it."""
    folder = tmp_path_factory.mktemp("places")
    store = make_store(folder)
    run_folder(store.path).make()
    (folder / "older").mkdir()
    older = spoil(make_store(folder / "older").path, schema=2)
    (folder / "empty").mkdir()
    (folder / "notes").mkdir()
    (folder / "notes" / "a.txt").write_text("mine")
    (folder / "b.yaml").write_text("name: b")
    with zipfile.ZipFile(folder / "c.zip", "w") as file:
        file.writestr("other.txt", "")
    (folder / "d.nc").write_bytes(b"no netCDF")
    zarr.create_group(folder / "data.zarr", attributes={"title": "t"})
    zarr.create_group(folder / "old.zarr", zarr_format=2)
    return {
        "it is a prediction by the models of small; hpc-sweep status": predicted(folder / "p.zarr"),
        "it is an empty folder; name the store of a sweep": folder / "empty",
        "it is a folder that is no zarr; name": folder / "notes",
        "it is a file; name the store of a sweep": folder / "b.yaml",
        "it is an archive; hpc-sweep results reads it as it is": folder / "c.zip",
        "it is an archive; hpc-sweep results": folder / "d.nc",
        "it is zarr of something else, such as data; name": folder / "data.zarr",
        "it is zarr of something else": folder / "old.zarr",
        f"it is the run folder of {store.path}; name {store.path}": run_folder(store.path).path,
        "is of schema 2, this version reads 3; use the version of hpc_sweep that made it": older,
        "does not exist": folder / "none.zarr",
    }


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_says_what_is_there(
    command: str, places: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    more = {"archive": ["it.zip"], "predict": ["data.zarr", "out.zarr"]}.get(command, [])
    for words, place in places.items():
        if command in ("status", "verify", "cancel") and "prediction" in words:
            continue  # these know predictions
        if command == "cancel" and "schema" in words:
            continue  # whose jobs are the same
        told = invoke(command, place, *more)
        is_read = command == "results" and place.suffix in (".zip", ".nc", ".yaml")
        expected = f"error: {place} is no archive of a sweep's store" if is_read else words
        assert told.exit_code == 2, (place, told.output)
        assert expected in told.stderr, place
        assert told.stderr.count("\n") == 1, told.stderr
    assert list(tmp_path.iterdir()) == []


def test_what_a_prediction_says_of_itself(tmp_path: Path) -> None:
    """Where the models are; and of another schema, which one."""
    told = invoke("report", predicted(tmp_path / "p.zarr"))
    assert told.stderr.endswith("opens it; the models are in /models/small.zarr\n")
    told = invoke("status", predicted(tmp_path / "q.zarr", schema=1))
    assert "q.zarr is a prediction of schema 1, this version makes 2" in told.stderr


def test_who_follows_something_else_is_told_at_once(places: dict[str, Path]) -> None:
    for place in places.values():
        if place.name in ("b.yaml", "data.zarr"):
            told = invoke("status", place, "--watch")
            assert (told.exit_code, "no store of a sweep" in told.stderr) == (2, True)
    assert Watching(places["does not exist"]).look().state == "absent"


def test_the_header_of_a_store_that_makes_no_sense(tmp_path: Path) -> None:
    told = invoke("verify", spoil(make_store(tmp_path).path, steps=1))
    assert "it has a zarr.json that makes no sense; bring that back" in told.stderr
