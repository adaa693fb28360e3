"""Help, its examples, and what a shell offers on Tab."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest
import zarr
from builders import make_store
from click.shell_completion import ShellComplete
from click.testing import CliRunner, Result

from hpc_sweep.cli import main


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def examples(help_text: str) -> list[str]:
    """Return the lines below ``Examples:``."""
    lines = help_text.partition("Examples:\n")[2].splitlines()
    return [line.strip() for line in lines if line.strip().startswith("hpc-sweep ")]


def parse(line: str) -> None:
    """Parse a command line as Click would, and run nothing."""
    _, *words = shlex.split(line.partition(">")[0])
    root = main.make_context("hpc-sweep", words)
    name, command, rest = main.resolve_command(root, [*root._protected_args, *root.args])
    assert command is not None
    command.make_context(name, rest, parent=root)


@pytest.mark.parametrize("name", ["", *main.commands])
def test_help_has_examples_that_parse(name: str) -> None:
    shown = invoke(*([name] if name else []), "--help").output
    lines = examples(shown)
    assert lines, shown
    for line in lines:
        assert line.startswith(f"hpc-sweep {name}")
        parse(line)
    assert max(map(len, shown.splitlines())) <= 100


def test_an_example_that_is_wrong_is_seen() -> None:
    with pytest.raises(click.UsageError):
        parse("hpc-sweep results results.zarr --wat models")


def test_facts_are_json_wherever_there_are_some() -> None:
    without = {"init", "schema", "completions"}
    for name, command in main.commands.items():
        options = {option for param in command.params for option in param.opts}
        assert ("--json" in options) != (name in without), name


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts_of_shells(shell: str) -> None:
    result = invoke("completions", shell)
    assert result.exit_code == 0
    assert "_HPC_SWEEP_COMPLETE" in result.stdout
    assert f"{shell}_complete" in result.stdout
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=result.stdout, text=True, check=True)


def offered(*words: str) -> list[str]:
    *arguments, incomplete = words
    found = ShellComplete(main, {}, "hpc-sweep", "_X").get_completions(list(arguments), incomplete)
    return [item.value if item.type == "plain" else f"({item.type})" for item in found]


def test_what_a_shell_offers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_store(tmp_path)
    zarr.create_group(tmp_path / "data.zarr")
    (tmp_path / "folder").mkdir()
    (tmp_path / "sweep.yaml").touch()
    monkeypatch.chdir(tmp_path)
    assert {"results", "verify", "archive"} <= set(offered(""))
    assert offered("results", "") == ["results.zarr"]
    assert offered("status", "results.zarr", f"{tmp_path}/re") == [f"{tmp_path}/results.zarr"]
    assert offered("verify", "f") == ["(dir)"]
    assert offered("verify", "absent/") == []
    assert offered("run", "") == ["sweep.yaml"]
    assert offered("run", "x") == ["(file)"]
    assert offered("run", "sweep.yaml", "--cluster", "s") == ["slurm"]
    assert offered("results", "results.zarr", "--what", "m") == ["models"]
    assert "generic-slurm" in offered("machines", "gen")
    keys = offered("run", "sweep.yaml", "--set", "search.")
    assert {"search.cv=", "search.scoring=", "search.n_trials="} <= set(keys)
    assert "models.0.param_grid=" in offered("run", "sweep.yaml", "--set", "models.0.")
    assert offered("plan", "sweep.yaml", "--set", "data.holdo") == ["data.holdout="]


def test_cancel_and_submit_tell_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpc_sweep.cancellation.cancel", lambda store: ["7", "8"])
    facts: Any = json.loads(invoke("cancel", tmp_path / "it.zarr", "--json").stdout)
    assert facts["cancelled"] == ["7", "8"]
