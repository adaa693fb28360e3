"""Imports go downward only; what the command line shows at once stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import hpc_sweep

PACKAGE = Path(hpc_sweep.__file__).parent
FLOORS = {
    0: {"errors", "choices", "machines", "placeholders", "printing", "redaction"},
    1: {
        "spec",
        "partitions",
        "candidates",
        "estimators",
        "versions",
        "processes",
        "jobend",
        "steady",
    },
    2: {"plan", "directives", "charge", "linear", "strategies"},
    3: {"source", "search", "store", "clusters", "jobscripts", "serialization"},
    4: {"drive", "work", "prepare", "stops", "budget", "driverjobs", "tables"},
    5: {"preloaded", "worker", "calibration", "sweep", "submission", "cancellation", "chain"}
    | {"results", "models", "doctor", "accessor", "tally", "reporting", "detached"},
    6: {"prediction", "watching", "keeping"},
    7: {"cli"},
    8: {"__init__", "__main__"},
}
FLOOR = {room: floor for floor, rooms in FLOORS.items() for room in rooms}
LIBRARIES = {
    0: set(),
    1: {"pydantic", "numpy", "ruamel", "sklearn"},
    2: {"numpy", "sklearn", "optuna"},
}
"""What the lower floors may import besides the standard library."""
AT_IMPORT = {1: {"pydantic", "numpy"}, 2: {"pydantic", "numpy"}, 7: {"click"}}
"""What they may import when they are imported themselves, not inside functions."""


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path, *, top_level: bool) -> list[str]:
    tree = ast.parse(path.read_text())
    inside = {
        child
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        or (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
        for child in ast.walk(node)
    }
    names = []
    for node in ast.walk(tree):
        if top_level and node in inside:
            continue
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the floor"
            names.append(node.module or "")
    return names


def test_imports_go_downward() -> None:
    wrong = []
    for path in modules():
        room = room_of(path)
        rooms = {
            name.split(".")[1]
            for name in imported(path, top_level=False)
            if name.startswith("hpc_sweep.")
        }
        wrong += [
            f"{path} (floor {FLOOR[room]}) imports {other} (floor {FLOOR[other]})"
            for other in rooms - {room}
            if FLOOR[other] >= FLOOR[room]
        ]
    assert not wrong


def test_floors_import_their_libraries_only() -> None:
    wrong = []
    for path in modules():
        floor = FLOOR[room_of(path)]
        for top_level, allowed in ((False, LIBRARIES.get(floor)), (True, AT_IMPORT.get(floor))):
            if allowed is None:
                continue
            for name in imported(path, top_level=top_level):
                top = name.split(".")[0]
                own = top == "hpc_sweep" and (floor != 7 or top_level is False or light(name))
                if top not in allowed | set(sys.stdlib_module_names) and not own:
                    wrong.append(f"{path} imports {name}")
    assert not wrong


def light(name: str) -> bool:
    parts = name.split(".")
    return len(parts) == 1 or FLOOR[parts[1]] in (0, 7)


def test_every_room_has_a_floor() -> None:
    assert {room_of(path) for path in modules()} == set(FLOOR)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, contextlib\n"
        "from hpc_sweep.cli import main\n"
        "with contextlib.suppress(SystemExit): main(['--help'])\n"
        "heavy = {'numpy', 'pydantic', 'dask', 'xarray', 'zarr', 'sklearn', 'rich'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
