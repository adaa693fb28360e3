"""The pages of documentation build strictly, and what they show to type or write is valid."""

from __future__ import annotations

import itertools
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from conftest import REPOSITORY

import hpc_sweep
from hpc_sweep.cli import main
from hpc_sweep.spec import (
    ClusterSpec,
    DataSpec,
    MachineProfile,
    OutputSpec,
    SweepSpec,
    load_spec,
    parse_yaml,
)

PAGES = [
    REPOSITORY / "README.md",
    REPOSITORY / "CONTRIBUTING.md",
    *sorted(REPOSITORY.glob("docs/**/*.md")),
    *sorted(REPOSITORY.glob("examples/**/*.md")),
]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SMALL = {
    "data": {"store": "data.zarr", "features": ["a"], "target": "b", "partition_by": ["x"]},
    "models": [{"estimator": "sklearn.linear_model.Ridge", "param_grid": {"alpha": [1]}}],
    "output": {"store": "results.zarr"},
}


def blocks(*languages: str) -> list[Any]:
    """Return the fenced blocks of these languages on all pages, named by page and line."""
    shown = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for found in BLOCK.finditer(text):
            if found[1] in languages:
                line = text.count("\n", 0, found.start()) + 1
                shown.append(pytest.param(found[2], id=f"{page.relative_to(REPOSITORY)}:{line}"))
    return shown


def commands(block: str) -> Iterator[list[str]]:
    """Yield the words of what is typed at a prompt, or of a whole script."""
    joined = block.replace("\\\n", " ")
    for line in joined.splitlines():
        typed = re.match(r"[$#] (.*)", line)
        if typed:
            for part in re.split(
                r"&&|;", re.split(r" [>|] ", typed[1])[0].replace("<this repository>", "URL")
            ):
                yield shlex.split(part, comments=True)


def without_search_keys(part: Mapping[str, Any]) -> dict[str, Any]:
    """Complete a part of a spec: what it leaves out is that of a small one."""
    whole: dict[str, Any] = {**SMALL, **part}
    whole["data"] = {**(SMALL["data"] if "data" in part else {}), **whole["data"]}
    if "loader" in whole["data"]:
        whole["data"].pop("store", None)
    strategy = whole.get("search", {}).get("strategy", "grid")
    if "models" not in part and strategy not in ("grid", "halving"):
        model = {"estimator": "sklearn.linear_model.SGDRegressor"}
        whole["models"] = [{**model, "param_distributions": {"alpha": [1, 2]}}]
    if any("param_distributions" in model for model in whole["models"]) and "search" not in part:
        whole["search"] = {"strategy": "random"}
    whole["output"] = {**SMALL["output"], **whole["output"]}
    return whole


@pytest.mark.parametrize("block", blocks("yaml"))
def test_specs_that_are_shown_are_valid(block: str) -> None:
    shown = parse_yaml(block)
    keys = set(shown)
    if keys <= set(SweepSpec.model_fields):
        shown.get("cluster", {}).pop("machine", None)
        load_spec(without_search_keys(shown))
    elif "description" in keys:
        MachineProfile.model_validate(shown)
    elif "{mounts}" in block:  # is made of the path of this checkout, which may have spaces
        ClusterSpec.model_validate(shown)
    else:
        kinds = {"data": DataSpec, "cluster": ClusterSpec, "output": OutputSpec}
        section = next(name for name, kind in kinds.items() if keys <= set(kind.model_fields))
        load_spec(without_search_keys({section: shown}))


@pytest.mark.parametrize("block", blocks("console", "bash", "sh"))
def test_commands_that_are_shown_exist(block: str) -> None:
    for words in commands(block):
        if words[:1] == ["hpc-sweep"] or words[:3] == ["srun", "--partition=compute", "hpc-sweep"]:
            parse(words[words.index("hpc-sweep") + 1 :])
        elif words[:1] in (["python"], ["bash"]) and words[1:2] != ["-m"]:
            assert (REPOSITORY / words[1]).is_file(), words


def parse(words: list[str]) -> None:
    """Fail unless Click takes the words, and the spec the overrides."""
    if words == ["--version"]:
        return
    with main.make_context("hpc-sweep", list(words)) as whole:
        name, command, rest = main.resolve_command(whole, whole._protected_args + whole.args)
        assert command is not None
        with command.make_context(name, list(rest), parent=whole) as context:
            given = context.params
    settings = [each for each in given.get("settings") or () if "machine" not in each]
    spec = given.get("spec") or ""
    real = REPOSITORY / spec
    if settings:
        load_spec(real if spec.startswith("examples/") else SMALL, settings)


@pytest.mark.parametrize("block", blocks("python"))
def test_python_that_is_shown_is_valid(block: str) -> None:
    compile(block, "a page", "exec")
    for name in re.findall(r"hpc_sweep\.(\w+)\(", block):
        assert name in hpc_sweep.__all__


@pytest.mark.parametrize("name", main.commands)
def test_examples_in_help_stay_as_they_are_and_exist(name: str) -> None:
    shown = CliRunner().invoke(main, [name, "--help"], terminal_width=100).output
    assert r"\b" not in shown
    examples = shown.partition("Examples:\n")[2].splitlines()
    for line in itertools.takewhile(str.strip, examples):
        words = shlex.split(re.split(r" [>|] ", line)[0])
        assert words.pop(0) == "hpc-sweep", line
        parse(words)


def test_what_is_shown_can_be_wrong() -> None:
    with pytest.raises(click.NoSuchOption):
        parse(["run", "sweep.yaml", "--clutser", "slurm"])
    with pytest.raises(hpc_sweep.errors.SpecError):
        parse(["run", "sweep.yaml", "--set", "search.cvv=3"])
    assert list(commands("$ a b \\\n  c && d\nout")) == [["a", "b", "c"], ["d"]]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the pages, built so that a warning is a failure."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder]
    built = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


def test_pages_ask_no_other_host(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 30
    asks = re.compile(r"<(?:script|img|link|iframe)\b[^>]*(?:src|href)=[\"']?(?:https?:)?//[^>]*>")
    for page in pages:
        assert not asks.findall(page.read_text(encoding="utf-8")), page


def test_reference_is_made_of_the_code(site: Path) -> None:
    keys = (site / "reference/keys/index.html").read_text(encoding="utf-8")
    for section in (DataSpec, ClusterSpec, OutputSpec):
        assert all(f"<code>{key}</code>" in keys for key in section.model_fields)
    commands_shown = (site / "reference/cli/index.html").read_text(encoding="utf-8")
    assert all(f"hpc-sweep {name}" in commands_shown for name in main.commands)
    assert "Sentinel" not in commands_shown
    api = (site / "reference/api/index.html").read_text(encoding="utf-8")
    functions = [name for name in hpc_sweep.__all__ if name not in ("SweepSpec", "__version__")]
    assert all(f"hpc_sweep.{name}" in api for name in functions)
