"""What is shipped: the wheel, the documents, and that they speak of nothing they should not."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

from conftest import REPOSITORY

import hpc_sweep


def tracked() -> list[Path]:
    command = ["git", "-C", str(REPOSITORY), "ls-files", "-z"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [REPOSITORY / name for name in listed.split("\0") if name]


def test_the_wheel_holds_templates_and_types(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "-o", str(tmp_path)]
    subprocess.run([*command, str(REPOSITORY)], capture_output=True, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert "hpc_sweep/py.typed" in names
    templates = [path for path in (REPOSITORY / "templates").rglob("*") if path.is_file()]
    assert templates
    for path in templates:
        assert f"hpc_sweep/templates/{path.relative_to(REPOSITORY / 'templates')}" in names
    assert hpc_sweep.__version__ in wheel.name


def test_environment_yml_asks_for_what_pyproject_asks_for() -> None:
    import tomllib

    from hpc_sweep.spec import parse_yaml

    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    conda = parse_yaml((REPOSITORY / "environment.yml").read_text())["dependencies"]
    assert set(project["dependencies"]) <= {entry for entry in conda if isinstance(entry, str)}


def test_constraints_name_versions_only() -> None:
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert len(pins) > 40
    for line in pins:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line), line


def test_links_in_documents_lead_somewhere() -> None:
    for page in (path for path in tracked() if path.suffix == ".md"):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_public_names_are_importable() -> None:
    for name in hpc_sweep.__all__:
        assert getattr(hpc_sweep, name) is not None
    assert set(hpc_sweep.__all__) <= set(dir(hpc_sweep))
