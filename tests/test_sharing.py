"""A store that a group shares, with real accounts; resuming from anywhere else."""

from __future__ import annotations

import grp
import json
import os
import shutil
import signal
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from accounts import Account
from conftest import Spec, equal_stores, make_data, slow, small_spec, wait_for_units

from hpc_sweep.errors import EXIT_CLUSTER, EXIT_USER, SpecError
from hpc_sweep.prepare import prepare
from hpc_sweep.spec import load_spec
from hpc_sweep.store import give_all, group_access, run_folder
from hpc_sweep.store.header import changed_header
from hpc_sweep.store.sharing import group_fault, make_folder
from hpc_sweep.sweep import execute

GROUP = 100  # Debian's "users"
ANNA, BERT, CARL = 61001, 61002, 61003


def group_name() -> str:
    try:
        return grp.getgrgid(GROUP).gr_name
    except KeyError:
        pytest.skip(f"there is no group of number {GROUP}")


@pytest.fixture
def place() -> Iterator[Path]:
    """Return a folder that all accounts can look into; pytest's own are closed."""
    folder = Path(tempfile.mkdtemp(prefix="hpc-sweep-accounts-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def anna(place: Path) -> Account:
    """Return the account that begins; the folder of the store is hers."""
    home = place / "project"
    home.mkdir(mode=0o755)
    os.chown(home, ANNA, ANNA)
    return Account(ANNA, (GROUP,), home)


@pytest.fixture
def bert(anna: Account) -> Account:
    """Return a colleague of the group."""
    return Account(BERT, (GROUP,), anna.home)


@pytest.fixture
def carl(anna: Account) -> Account:
    """Return somebody else."""
    return Account(CARL, (), anna.home)


@pytest.fixture
def shared_spec(place: Path, anna: Account) -> Spec:
    """Return the slow sweep in Anna's folder, shared with the group."""
    data = make_data(place / "data.zarr")
    spec = slow(small_spec(data, anna.home / "results" / "results.zarr"))
    spec["output"]["group"] = group_name()
    return spec


def write(spec: Spec, place: Path) -> Path:
    path = place / "sweep.yaml"
    path.write_text(json.dumps(spec))
    path.chmod(0o644)
    return path


def umask() -> int:
    before = os.umask(0o077)
    os.umask(before)
    return before


def what_is_not_shared(folder: Path, group: int = GROUP) -> list[str]:
    """Return files and folders that the group cannot write, or of another group; not keys."""
    wrong = []
    for path in [folder, *folder.rglob("*")]:
        if any(part.startswith("keys") for part in path.relative_to(folder).parts):
            continue
        state = path.lstat()
        wanted = 0o2070 if stat.S_ISDIR(state.st_mode) else 0o060
        if state.st_gid != group or state.st_mode & wanted != wanted:
            wrong.append(f"{stat.filemode(state.st_mode)} {state.st_gid} {path}")
    return wrong


def test_a_colleague_goes_on(
    shared_spec: Spec,
    place: Path,
    anna: Account,
    bert: Account,
    carl: Account,
    uninterrupted: Path,
) -> None:
    """One account starts and is killed, another one resumes; a third one is kept out."""
    store = Path(shared_spec["output"]["store"])
    spec_file = write(shared_spec, place)
    process = anna.start(sys.executable, "-m", "hpc_sweep", "run", spec_file)
    wait_for_units(store, 1, process)
    os.kill(process.pid, signal.SIGSTOP)  # so that it does not end meanwhile
    busy = bert.sweep("run", spec_file)
    assert busy.returncode == EXIT_CLUSTER
    assert f"another driver works on this store: process {process.pid} on" in busy.stderr
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert what_is_not_shared(store) == what_is_not_shared(run_folder(store).path) == []
    assert store.stat().st_mode & 0o007 == 0
    for command in ("run", spec_file), ("status", store):
        refused = carl.sweep(*command)
        assert refused.returncode in (EXIT_USER, EXIT_CLUSTER)
        assert "no permission" in refused.stderr
    done = bert.sweep("run", spec_file)
    assert done.returncode == 0, done.stderr
    assert "going on" in done.stdout
    assert f"took the store over from process {process.pid}" in done.stderr
    assert what_is_not_shared(store) == what_is_not_shared(run_folder(store).path) == []
    equal_stores(store, uninterrupted)
    told = anna.sweep("run", spec_file)
    assert told.returncode == 0, told.stderr
    assert "complete already" in told.stdout
    owners = {path.stat().st_uid for path in (store / "status").glob("c.*")}
    assert BERT in owners


def test_a_group_that_one_is_no_member_of(
    shared_spec: Spec, place: Path, anna: Account, carl: Account
) -> None:
    spec_file = write(shared_spec, place)
    anna.home.chmod(0o777)
    refused = carl.sweep("run", spec_file)
    assert refused.returncode == EXIT_USER
    assert f"output.group: you are not a member of '{group_name()}'" in refused.stderr
    assert list(anna.home.iterdir()) == []


def test_an_unknown_group(spec: Spec) -> None:
    spec["output"]["group"] = "nonesuch"
    with pytest.raises(SpecError, match=r"output\.group: there is no group 'nonesuch'"):
        prepare(load_spec(spec))
    assert not run_folder(spec["output"]["store"]).path.exists()
    mine = grp.getgrgid(os.getegid()).gr_name
    assert f"did you mean '{mine}'" in group_fault(f"{mine}x")


HOLD = """
import sys, time
from pathlib import Path
from hpc_sweep.store import hold
with hold(Path(sys.argv[1]) / "lease.json"):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def test_a_lease_is_taken_over_from_an_account_that_shares_nothing_but_the_folder(
    anna: Account, bert: Account
) -> None:
    """Linux refuses hard links to files that one cannot write."""
    anna.home.chmod(0o777)
    process = anna.start(sys.executable, "-c", HOLD, anna.home, 60)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    (anna.home / "lease.json").chmod(0o644)
    held = bert.run(sys.executable, "-c", HOLD, anna.home, 0)
    assert "LeaseError: another driver works on this store" in held.stderr
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    held = bert.run(sys.executable, "-c", HOLD, anna.home, 0)
    assert held.stdout == "held\n", held.stderr
    assert list(anna.home.iterdir()) == []


KEYS = """
import sys
from pathlib import Path
from hpc_sweep.clusters.certificates import keys_folder, make_certificates
folder = keys_folder(Path(sys.argv[1]))
make_certificates(folder)
print(folder.name)
"""


def test_each_account_has_its_own_keys(place: Path, anna: Account, bert: Account) -> None:
    run = anna.home / "results.zarr.run"
    with group_access(True):
        make_folder(run, GROUP)
    for account, name in ((anna, "keys"), (bert, f"keys-{BERT}"), (anna, "keys")):
        made = account.run(sys.executable, "-c", KEYS, run)
        assert made.stdout.strip() == name, made.stderr
        assert (run / name).stat().st_uid == account.uid
        assert (run / name).stat().st_mode & 0o777 == 0o700
        assert {file.stat().st_mode & 0o777 for file in (run / name).iterdir()} == {0o600}
        assert {file.name for file in (run / name).iterdir()} == {"ca.pem", "cert.pem", "key.pem"}
    read = bert.run("cat", run / "keys" / "key.pem")
    assert read.returncode != 0


def test_a_folder_for_keys_that_somebody_else_made_is_refused(
    place: Path, anna: Account, bert: Account
) -> None:
    """In a folder of the group a colleague can put one there beforehand."""
    run = anna.home / "results.zarr.run"
    run.mkdir()
    (run / "keys").mkdir(mode=0o700)
    (run / f"keys-{BERT}").mkdir()
    os.chown(run / "keys", ANNA, ANNA)
    made = bert.run(sys.executable, "-c", KEYS, run)
    assert made.returncode != 0
    assert "is for your keys, but it is no folder of yours" in made.stderr
    assert not list((run / f"keys-{BERT}").iterdir())


# pieces


def test_folders_above_that_are_made_are_shared_too(tmp_path: Path) -> None:
    above = tmp_path / "a"
    before = tmp_path.stat().st_mode
    with group_access(True):
        make_folder(above / "b" / "c", GROUP)
        (above / "b" / "c" / "d").mkdir()
        (above / "b" / "c" / "d" / "file").touch()
    state = (above / "b" / "c" / "d" / "file").stat()
    assert state.st_mode & 0o060 == 0o060
    if os.geteuid() == 0:
        assert state.st_gid == GROUP
    assert above.stat().st_mode & 0o2070 == 0o2070
    assert tmp_path.stat().st_mode == before


def test_only_the_owner_can_share(anna: Account, bert: Account) -> None:
    words = f"from hpc_sweep.store import give_all; give_all({str(anna.home)!r}, {GROUP})"
    tried = bert.run(sys.executable, "-c", words)
    assert "Operation not permitted: cannot write" in tried.stderr
    assert "you have no permission; ask the owner for it (output.group" in tried.stderr
    assert anna.home.stat().st_gid == ANNA


def test_links_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("")
    outside.chmod(0o600)
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "link").symlink_to(outside)
    give_all(shared, os.getegid())
    assert outside.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o007])
def test_the_umask_gives_the_group_what_others_do_not_get(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with group_access(False):
            (tmp_path / "own").touch()
        with group_access(True):
            (tmp_path / "shared").touch()
        (tmp_path / "after").touch()
    finally:
        os.umask(before)
    modes = {name: (tmp_path / name).stat().st_mode & 0o777 for name in ("own", "shared", "after")}
    others = 0o666 & ~umask & 0o007
    assert modes == {"own": 0o666 & ~umask, "shared": 0o660 | others, "after": 0o666 & ~umask}


# another account of the queue, memory, machine


def test_what_does_not_define_the_results_never_blocks_a_resume(spec: Spec, tmp_path: Path) -> None:
    """And what lies there already is given to a group that is named only now."""
    store = execute(load_spec(spec)).store
    (store.path / "status" / "c.1.1.0").unlink()
    spec["name"] = "renamed"
    spec["cluster"] = {
        **{"kind": "local", "workers": 1, "memory": "600MB", "account": "other", "queue": "other"},
        **{"walltime": "00:10:00", "start_timeout": 100, "prologue": ["true"]},
    }
    number = GROUP if os.geteuid() == 0 else os.getegid()
    spec["output"]["group"] = grp.getgrgid(number).gr_name
    with changed_header(store.path) as header:
        header["versions"]["cpu"] = "another machine's"
    assert what_is_not_shared(store.path, number)
    before, umasks = umask(), set()
    outcome = execute(load_spec(spec), on_progress=lambda progress: umasks.add(umask()))
    assert umasks == {before}  # what Dask and jobs write is not for the group
    assert outcome.progress is not None
    assert outcome.progress.cells_this_run == 12 * 5
    assert what_is_not_shared(store.path, number) == []
    assert what_is_not_shared(store.run.path, number) == []
