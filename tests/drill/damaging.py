"""Acts on units, files and by people."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from random import Random

from conftest import hpc_sweep
from killing import kill_driver
from sweeps import LOCAL, ON_QUEUE, OUTSIDE, PLACES, SLURM, Sweep
from table import AFTER, BEFORE, act

# units


def _misbehave(sweep: Sweep, how: str) -> str:
    """Put a candidate into the search that misbehaves in one partition of a hundred."""
    model = {"name": how, "estimator": {"faulty.Rare": {"how": how, "above": 0.22}}}
    sweep.spec["models"].append(model)
    if how in ("hang", "loop"):
        sweep.spec["search"]["timeout"] = 2
    return f"fits of some partitions: {how}"


@act(*PLACES, when=BEFORE)
def a_fit_segfaults(sweep: Sweep, rng: Random) -> str:
    return _misbehave(sweep, "crash")


@act(*PLACES, when=BEFORE)
def a_fit_ends_its_process(sweep: Sweep, rng: Random) -> str:
    return _misbehave(sweep, "kill")


@act(LOCAL, *ON_QUEUE, when=BEFORE)
def a_fit_eats_memory(sweep: Sweep, rng: Random) -> str:
    return _misbehave(sweep, "memory")


@act(LOCAL, *ON_QUEUE, when=BEFORE)
def a_fit_never_ends(sweep: Sweep, rng: Random) -> str:
    return _misbehave(sweep, rng.choice(["hang", "loop"]))


# damage


def _flip(file: Path, rng: Random) -> int:
    content = bytearray(file.read_bytes())
    place = rng.randrange(len(content))
    content[place] ^= 1 << rng.randrange(8)
    file.write_bytes(content)
    return place


@act(*PLACES, when=BEFORE)
def flip_input(sweep: Sweep, rng: Random) -> str:
    """A byte of a chunk of the data; it is mended before the last command."""
    chunks = [
        file for name in ("wet", "green", "slope") for file in (sweep.data / name / "c").rglob("*")
    ]
    file = rng.choice(sorted(each for each in chunks if each.is_file()))
    whole = file.read_bytes()
    place = _flip(file, rng)
    sweep.undo.callback(file.write_bytes, whole)
    sweep.fails = True
    return f"byte {place} of {file.relative_to(sweep.data)} flipped"


@act(*PLACES)
def flip_part(sweep: Sweep, rng: Random) -> str:
    """A byte of what a unit has left, after the driver was killed."""
    kill_driver(sweep, rng)
    sweep.collect()
    parts = sorted(sweep.run_folder.parts.iterdir()) if sweep.run_folder.parts.exists() else []
    if not parts:
        return "the driver was killed, there were no parts"
    part = rng.choice(parts)
    sweep.kills += 1
    return f"byte {_flip(part, rng)} of part {part.name} flipped"


def _mended(sweep: Sweep, what: str) -> str:
    """Do what ``hpc-sweep verify`` says, and run the same command again."""
    told = hpc_sweep("verify", sweep.store, env=sweep.all_environment())
    if "half finished" not in told.stdout:  # as it is without a status
        assert told.returncode == 2, f"verify saw nothing: {what}\n{told.stdout}{told.stderr}"
    remedies = re.findall(r"^ +delete (.+?)(?:,| and) (?:then )?run", told.stdout, re.MULTILINE)
    for files in remedies:
        for file in files.split():
            Path(file).unlink(missing_ok=True)
    assert remedies or "run the spec again" in told.stdout or not told.returncode, told.stdout
    sweep.kills += 1
    sweep.start()
    ended = sweep.collect()
    assert sweep.succeeded(ended), ended
    return f"{what}; mended as verify says"


def _result_files(sweep: Sweep) -> list[Path]:
    """Return files of arrays along partitions; the others are made once, with the store."""
    along = {file.parent.name for file in sweep.store.glob("*/c.0.0*")}
    return sorted(file for name in along for file in (sweep.store / name).glob("c.*"))


@act(*PLACES, when=AFTER)
def flip_result(sweep: Sweep, rng: Random) -> str:
    file = rng.choice(_result_files(sweep))
    return _mended(sweep, f"byte {_flip(file, rng)} of {file.parent.name}/{file.name} flipped")


@act(*PLACES, when=AFTER)
def remove_result(sweep: Sweep, rng: Random) -> str:
    file = rng.choice(_result_files(sweep))
    file.unlink()
    return _mended(sweep, f"{file.parent.name}/{file.name} removed")


def _keep_models(sweep: Sweep) -> None:
    """Have the best models stored."""
    sweep.spec["output"] |= {"models": "skops", "trust": ["faulty.Slow", "faulty.Rare"]}


@act(*PLACES, when=BEFORE, prepare=_keep_models)
def keep_models(sweep: Sweep, rng: Random) -> str:
    return "models are stored"


@act(*PLACES, when=AFTER, prepare=_keep_models)
def flip_model(sweep: Sweep, rng: Random) -> str:
    folder = sweep.store.with_name(f"{sweep.store.name}.models")
    file = rng.choice(sorted(folder.iterdir()))
    return _mended(sweep, f"byte {_flip(file, rng)} of models {file.name} flipped")


# people


@act(LOCAL, OUTSIDE, SLURM)
def second_driver(sweep: Sweep, rng: Random) -> str:
    """It is refused, or finds nothing to do where the first one has just ended."""
    if not sweep.run_folder.lease.exists():
        return ""
    done = hpc_sweep("run", sweep.spec_file, timeout=200, env=sweep.all_environment())
    refused = done.returncode == 3 and "another driver works on this store" in done.stderr
    first_is_gone = sweep.whole(done.returncode) and not sweep.is_running()
    assert refused or first_is_gone, f"exit code {done.returncode}\n{done.stdout}{done.stderr}"
    return "a second driver was refused" if refused else "a second driver came after the first"


@act(LOCAL, OUTSIDE, SLURM)
def edit_spec(sweep: Sweep, rng: Random) -> str:
    """The running driver goes on; the next command is refused until the edit is taken back."""
    edited = copy.deepcopy(sweep.spec)
    edited["search"]["cv"] = 4
    sweep.write_spec(edited)
    try:
        if sweep.is_running():
            sweep.reach("unit_done", 1)
        done = hpc_sweep("run", sweep.spec_file, timeout=200, env=sweep.all_environment())
    finally:
        sweep.write_spec()
    assert done.returncode in (2, 3), f"exit code {done.returncode}\n{done.stderr}"
    assert "search.cv" in done.stderr, done.stderr
    return "the spec said cv 4 for a while, and was refused"


@act(LOCAL, OUTSIDE, SLURM)
def look_at_it(sweep: Sweep, rng: Random) -> str:
    """``status``, ``verify`` and ``results`` while it is at work: they never disturb."""
    if not (sweep.store / "zarr.json").exists():
        return ""
    for command in ("status", "verify", "results"):
        done = hpc_sweep(command, sweep.store, timeout=100, env=sweep.all_environment())
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return "status, verify, results"
