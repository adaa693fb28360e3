"""What `output.trust` of a user's own spec lets the same user load, and nobody else."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faulty import Faulty
from test_model_files import Harm, go_on, make_spec, put, skops_of
from yearly import write, years_data

import hpc_sweep
from hpc_sweep.errors import StoreError
from hpc_sweep.keeping import archive
from hpc_sweep.models import Trust
from hpc_sweep.prepare import begin, prepare
from hpc_sweep.serialization import to_bytes
from hpc_sweep.spec import load_spec
from hpc_sweep.store import Store, header, lacks_signature, models_folder, run_folder, signing

PLACE = {"latitude": 60.0, "longitude": -1.0}
Spec = dict[str, Any]


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Spec, Path]:
    """Return a spec that trusts a type, and the finished store of this user; read only."""
    folder = tmp_path_factory.mktemp("signed")
    data = years_data()
    data.attrs["path"] = write(data, folder / "data.zarr")
    spec = make_spec(data, folder / "results.zarr")
    spec["models"] = [{"estimator": {"faulty.Faulty": {"how": "nothing"}}}]
    spec["output"]["trust"] = ["faulty.Faulty"]
    run_folder(spec["output"]["store"]).make()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        return spec, go_on(spec).path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signed: tuple[Spec, Path]) -> Path:
    """Return a data folder with a copy of the key that has signed, which this test may change."""
    there = Path(os.environ["XDG_DATA_HOME"])
    mine = Path(shutil.copytree(there, tmp_path / "home"))
    monkeypatch.setenv("XDG_DATA_HOME", str(mine))
    return mine


@pytest.fixture
def store(signed: tuple[Spec, Path], home: Path, tmp_path: Path) -> Path:
    """Return a copy of the signed store."""
    return copied(signed[1], tmp_path / "copy.zarr")


def copied(store: Path, to: Path) -> Path:
    for end in ("", ".run", ".models"):
        shutil.copytree(f"{store}{end}", f"{to}{end}")
    return to


def changed_header(store: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change what a store says of itself."""
    with header.changed_header(store) as facts:
        change(facts)


def refused(store: Path) -> str:
    """Return why a model of a store is not loaded, which says what to pass."""
    with pytest.raises(StoreError, match=r"'faulty.Faulty'.*trust=\[…\].*--trust NAME") as caught:
        hpc_sweep.load_model(store, **PLACE)
    assert isinstance(hpc_sweep.load_model(store, trust=["faulty.Faulty"], **PLACE), Faulty)
    return str(caught.value).partition("does not count here: ")[2]


def test_who_ran_it_loads_it_wherever_it_is(store: Path, home: Path, tmp_path: Path) -> None:
    key = home / "hpc-sweep" / "trust.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700
    assert [path.name for path in key.parent.iterdir()] == [key.name]
    secret = key.read_bytes()
    assert len(secret) == 32
    assert isinstance(hpc_sweep.load_model(store, **PLACE), Faulty)
    archive(store, tmp_path / "kept.zip")
    with zipfile.ZipFile(tmp_path / "kept.zip") as kept:
        kept.extractall(tmp_path / "unpacked.zarr")
    moved = copied(store, tmp_path / "moved" / "results.zarr")
    (tmp_path / "unpacked.zarr" / ".models").rename(tmp_path / "unpacked.zarr.models")
    for place in (moved, tmp_path / "unpacked.zarr"):
        assert isinstance(hpc_sweep.load_model(place, **PLACE), Faulty)
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path != key]
    assert not any(form in path.read_bytes() for path in files for form in forms(secret))


def forms(secret: bytes) -> tuple[bytes, ...]:
    return secret, secret.hex().encode()


def keyless(home: Path) -> None:
    shutil.rmtree(home)


def homeless(home: Path) -> None:
    shutil.rmtree(home)
    home.write_text("a file")


def of_another(home: Path) -> None:
    (home / "hpc-sweep" / "trust.key").write_bytes(bytes(32))


def readable(home: Path) -> None:
    (home / "hpc-sweep" / "trust.key").chmod(0o640)


def short(home: Path) -> None:
    (home / "hpc-sweep" / "trust.key").write_bytes(b"short")


def a_pipe(home: Path) -> None:
    (home / "hpc-sweep" / "trust.key").unlink()
    os.mkfifo(home / "hpc-sweep" / "trust.key", 0o600)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (keyless, "you have no key"),
        (homeless, "cannot be read: Not a directory"),
        (of_another, "not signed by your key"),
        (readable, "can be read or written by others .mode 0640.; remove it"),
        (short, "does not have 32 bytes; remove it"),
        (a_pipe, "is no file; remove it"),
    ],
)
def test_without_the_key_nothing_is_trusted(
    store: Path, home: Path, change: Callable[[Path], None], words: str
) -> None:
    change(home)
    why = refused(store)
    assert re.search(words, why), why


def test_a_key_and_files_of_others_do_not_count(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        assert "trust.key belongs to somebody else" in refused(store)
    for file in models_folder(Store.open(store)).iterdir():
        file.chmod(0o664)
    assert "others may write the file (mode 0664)" in refused(store)
    if os.getuid() == 0:
        for file in models_folder(Store.open(store)).iterdir():
            file.chmod(0o644)
            os.chown(file, 12345, -1)
        assert "the file belongs to somebody else" in refused(store)


def more_types(header: dict[str, Any]) -> None:
    header["spec"]["output"]["trust"].append("os.system")
    header["signed_types"]["types"].append("os.system")


def of_another_store(header: dict[str, Any]) -> None:
    header["id"] = "0123456789abcdef"


def self_made(header: dict[str, Any]) -> None:
    types = header["signed_types"]["types"]
    header["signed_types"]["signature"] = signing._signature(bytes(32), header["id"], types)


@pytest.mark.parametrize("change", [more_types, of_another_store, self_made])
def test_a_mailed_store_cannot_trust_itself(
    store: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    changed_header(store, change)
    assert "not signed by your key" in Trust.of(Store.open(store), ()).why_none


@pytest.mark.parametrize(
    "said",
    [
        *({}, [], None, "faulty.Faulty", {"types": ["faulty.Faulty"]}),
        {"types": "faulty.Faulty", "signature": ""},
        {"types": [["faulty.Faulty"]], "signature": ""},
        {"types": ["faulty.Faulty"], "signature": 1},
        {"types": ["faulty.Faulty"], "signature": "é"},
    ],
)
def test_nonsense_is_no_signature(store: Path, said: object) -> None:
    changed_header(store, lambda header: header.update(signed_types=said))
    assert refused(store) == "it is not signed"


def test_what_is_signed_opens_nothing_else(store: Path, tmp_path: Path) -> None:
    harm = tmp_path / "harm"
    put(Store.open(store), skops_of("os.system", f"touch '{harm}'"))
    with pytest.raises(StoreError, match=r"'os.system'"):
        hpc_sweep.load_model(store, **PLACE)

    def of_pickles(header: dict[str, Any]) -> None:
        header["spec"]["output"] |= {"models": "joblib", "trust": ["joblib"]}
        types = ["joblib", "os.system"]
        signature = signing._signature(signing.read_key(), header["id"], types)
        header["signed_types"] = {"types": types, "signature": signature}

    changed_header(store, of_pickles)
    for path in models_folder(Store.open(store)).iterdir():
        path.rename(path.with_suffix(".joblib"))
    put(Store.open(store), to_bytes(Harm(harm), "joblib"))
    with pytest.raises(StoreError, match="pickle of joblib"):
        hpc_sweep.load_model(store, **PLACE)
    changed_header(store, lambda header: header["spec"]["output"].update(models="skops"))
    assert Trust.of(Store.open(store), ()).types("") == ()
    assert not harm.exists()


def test_the_word_is_that_of_the_last_run(
    signed: tuple[Spec, Path], store: Path, home: Path
) -> None:
    """It is given without a home as far as it goes, later made up for, and taken back."""

    def run_again(trust: list[str]) -> list[str]:
        said: list[str] = []
        spec = load_spec({**signed[0], "output": {**output, "trust": trust}})
        prepared = prepare(spec)
        assert prepared.store is not None
        lacks.append(lacks_signature(prepared.store, spec.output))
        begin(prepared, say=said.append)
        return said

    output = {**signed[0]["output"], "store": str(store)}
    lacks: list[bool] = []
    key = (home / "hpc-sweep" / "trust.key").read_bytes()
    homeless(home)
    (told,) = run_again(["faulty.Faulty"])
    assert "will not count when these models are loaded: no key can be made" in told
    assert refused(store) == "it is not signed"
    home.unlink()
    assert run_again(["faulty.Faulty"]) == []
    assert (home / "hpc-sweep" / "trust.key").read_bytes() != key
    assert isinstance(hpc_sweep.load_model(store, **PLACE), Faulty)
    assert run_again(["faulty.Faulty"]) == []
    assert run_again(["joblib", "functools.partial", "os.system"]) == []
    assert refused(store) == "it is not signed"
    assert lacks == [True, True, False, True]


def test_a_key_is_never_replaced(home: Path) -> None:
    """Of two that make one at the same time, one has made it."""
    key = signing.key_file()
    before = key.read_bytes()
    signing._make_key(key)
    assert (key.read_bytes(), list(key.parent.iterdir())) == (before, [key])
    with contextlib.suppress(OSError):
        os.chown(key.parent, 12345, -1)
        with pytest.raises(signing.NoKeyError, match="its folder belongs to somebody else"):
            signing._make_key(key)
