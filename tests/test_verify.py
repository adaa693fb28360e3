"""``verify``: every kind of damage is told with its file and with what mends it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from builders import RIDGE, all_chunks, halves, invent, leave, make_store, whole
from click.testing import CliRunner, Result

from hpc_sweep.cli import main
from hpc_sweep.keeping import Verification, verify
from hpc_sweep.store import Ledger, Store, fold


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a whole store of four result chunks, several metrics."""
    folder = tmp_path_factory.mktemp("pristine")
    store = make_store(folder, scoring=["r2", "max_error"], refit="r2")
    truth = invent(store)
    for chunk in all_chunks(store):
        fold(store, chunk, [leave(store, truth, whole(store, chunk))])
    return folder


@pytest.fixture
def store(pristine: Path, tmp_path: Path) -> Path:
    shutil.copytree(pristine, tmp_path, dirs_exist_ok=True)
    return tmp_path / "results.zarr"


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def flip(file: Path, place: int = -9) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)


def alter(store: Path, name: str, change: Callable[[Any], Any], place: Any = (0, 1)) -> None:
    """Write another value, with the right checksum."""
    with zarr.config.set({"array.write_empty_chunks": True}):
        array: Any = zarr.open_group(str(store), mode="r+")[name]
        array[place] = change(array[place])


def only(found: Verification) -> tuple[str, str, str]:
    (finding,) = found.findings
    return Path(finding.file).name, finding.fault, finding.remedy


def again(store: Path, found: Verification) -> None:
    """Do what the remedy says, but for computing: the parts come back."""
    (finding,) = found.findings
    assert finding.remedy.startswith("delete ")
    for file in finding.remedy.removeprefix("delete ").partition(", then ")[0].split():
        Path(file).unlink()
    opened = Store.open(store)
    ledger, truth = Ledger.read(opened), invent(opened)
    assert not ledger.is_complete
    for chunk in set(ledger.chunks) - ledger.folded:
        fold(opened, chunk, [leave(opened, truth, whole(opened, chunk))])


def test_a_sound_store_is_sound(store: Path) -> None:
    found = verify(store)
    assert found.findings == []
    assert found.is_complete
    assert found.driver is None
    files = [*store.glob("*/c.*"), *store.glob("*/[0-9]*")]
    assert found.files == len(files)
    assert found.bytes == sum(file.stat().st_size for file in files)
    result = invoke("verify", store)
    assert result.exit_code == 0
    assert "sound; complete, 4 of 4 result chunks" in result.output


HARMS = [("test_r2", harm) for harm in ("flip", "cut", "empty", "remove")]
HARMS += [(name, "flip") for name in ("message", "best_index", "best_model")]


@pytest.mark.parametrize(("name", "harm"), HARMS)
def test_a_damaged_chunk_is_told_and_mended(store: Path, name: str, harm: str) -> None:
    file = next(file for file in sorted((store / name).iterdir()) if "1" in file.name)
    if harm == "flip":
        flip(file)
    elif harm == "remove":
        file.unlink()
    else:
        os.truncate(file, 9 if harm == "cut" else 0)
    found = verify(store)
    told, fault, _ = only(found)
    assert told == file.name
    assert {"flip": "checksum", "cut": "checksum", "empty": "cut short", "remove": "missing"}[
        harm
    ] in fault
    again(store, found)
    assert verify(store).findings == []


def test_a_damaged_status_is_computed_again_by_the_same_command(store: Path) -> None:
    flip(store / "status" / "c.0.1.0")
    found = verify(store)
    name, fault, remedy = only(found)
    assert (name, remedy) == ("c.0.1.0", "run the spec again")
    assert "checksum" in fault
    assert found.result_chunks_done == 3
    assert not found.is_complete


@pytest.mark.parametrize("name", ["candidate_id", "split", "candidate", "in_spec"])
def test_what_was_made_with_the_store(store: Path, name: str) -> None:
    file = next(file for file in (store / name).iterdir() if file.name != "zarr.json")
    whole_file = file.read_bytes()
    if name != "candidate_id":  # which every command reads first
        flip(file, 0)
        assert "bring it back" in only(verify(store))[2]
    file.unlink()
    if name != "candidate_id":
        assert only(verify(store))[:2] == (file.name, "is missing, which was made with the store")
    result = invoke("verify", store)
    assert result.exit_code == 2
    assert str(file.parent) in result.output
    file.write_bytes(whole_file)
    assert verify(store).findings == []


def test_metadata_are_those_of_the_group(store: Path) -> None:
    file = store / "best_score" / "zarr.json"
    file.write_text(file.read_text().replace("best mean", "worst mean"))
    assert only(verify(store))[:2] == ("zarr.json", "is not what the group's metadata say of it")
    file.write_text("{")
    assert "is not what" in only(verify(store))[1]
    file.unlink()
    assert "is missing" in only(verify(store))[1]
    root = store / "zarr.json"
    metadata = json.loads(root.read_text())
    del metadata["consolidated_metadata"]
    root.write_text(json.dumps(metadata))
    result = invoke("verify", store)
    assert result.exit_code == 2
    assert "no consolidated metadata" in result.stderr


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("mean_test_max_error", lambda v: np.nextafter(v, 9)),
        ("std_test_r2", lambda v: v * 0),
        ("rank_test_r2", lambda v: v[::-1]),
        ("best_index", lambda v: np.asarray(99)),
        ("best_score", lambda v: v + 1e-9),
        ("best_model", lambda v: "other"),
        ("best_param_alpha", lambda v: v + 1),
        ("partition_status", lambda v: v + 1),
        ("fit_time", lambda v: v * np.nan),
        ("n_samples", lambda v: v * 0),
    ],
)
def test_altered_values_are_seen_whatever_their_checksum(
    store: Path, name: str, change: Callable[[Any], Any]
) -> None:
    alter(store, name, change)
    found = verify(store)
    (finding,) = [each for each in found.findings if Path(each.file).parent.name == name]
    assert "latitude=0, longitude=1" in finding.fault
    assert finding.remedy.startswith("delete ")


def test_altered_scores_are_seen_by_what_follows_from_them(store: Path) -> None:
    alter(store, "test_r2", lambda v: v + 1)
    names = {Path(each.file).parent.name for each in verify(store).findings}
    assert names >= {"mean_test_r2", "best_score"}


def test_a_status_that_there_is_none_of(store: Path) -> None:
    alter(store, "status", lambda v: v * 0 + 77)
    assert "has a status that there is none of" in only(verify(store))[1]


def test_strays_and_leftovers(store: Path) -> None:
    (store / "thesis.tex").write_text("precious")
    (store / "best_score" / "c.9.9").write_text("x")
    (store / "status" / ".c.0.0.0.abcd.tmp").write_text("x")
    run = store.with_name("results.zarr.run")
    (run / "parts" / "other.npz").write_text("x")
    found = {Path(each.file).name: each for each in verify(store).findings}
    assert set(found) == {"thesis.tex", "c.9.9", ".c.0.0.0.abcd.tmp", "other.npz"}
    assert found["thesis.tex"].remedy == "move it elsewhere"
    assert "killed writer" in found[".c.0.0.0.abcd.tmp"].fault
    Store.open(store).remove_leftovers()
    left = {Path(each.file).name for each in verify(store).findings}
    assert left == {"thesis.tex", "c.9.9"}


def test_parts_beside_an_unfinished_store(tmp_path: Path) -> None:
    store = make_store(tmp_path, models=[RIDGE])
    truth, (first, second, *_) = invent(store), all_chunks(store)
    late, _ = halves(whole(store, first))
    fold(store, first, [leave(store, truth, whole(store, first))])
    leave(store, truth, late)
    good, bad = (leave(store, truth, half) for half in halves(whole(store, second)))
    flip(store.run.parts / str(bad))
    found = verify(store.path)
    told = {Path(each.file).name: each for each in found.findings}
    assert "done" in told.pop(next(name for name in told if "_0.0_" in name)).fault
    assert told.pop(str(bad)).fault == "is damaged"
    assert not told
    assert (found.result_chunks_done, found.is_complete) == (1, False)
    assert good.unit != bad.unit


def test_a_driver_at_work_is_told_and_its_files_are_no_faults(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hpc_sweep.store import hold

    (store / "status" / ".c.0.0.0.abcd.tmp").write_text("x")
    with hold(Store.open(store).run.lease):
        result = invoke("verify", store, "--json")
        (facts,) = json.loads(result.output)
        assert str(os.getpid()) in facts["driver"]
        assert facts["findings"] == []
        assert "a driver is at work on it" in invoke("verify", store).output
    assert invoke("verify", store).exit_code == 2


def test_many_faults_are_cut_for_people(store: Path) -> None:
    for number in range(30):
        (store / f"stray-{number}").touch()
    result = invoke("verify", store)
    assert result.exit_code == 2
    assert "… and 10 more faults" in result.output
    (facts,) = json.loads(invoke("verify", store, "--json").output)
    assert len(facts["findings"]) == 30
    assert set(facts["findings"][0]) == {"file", "fault", "remedy"}


def test_no_store(tmp_path: Path) -> None:
    result = invoke("verify", tmp_path / "absent.zarr")
    assert result.exit_code == 2
    assert "does not exist" in result.stderr


@pytest.mark.parametrize("harm", ["flip", "empty"])
def test_what_fails_on_a_damaged_store_is_explained(store: Path, harm: str) -> None:
    file = store / "best_index" / "c.0.1"
    flip(file) if harm == "flip" else os.truncate(file, 0)
    result = invoke("results", store)
    assert result.exit_code == 2
    assert result.output.startswith(f"error: {file} is ")
    assert f"delete {store / 'status' / 'c.0.1.0'}, then run the spec again" in result.output
