"""The drill: running sweeps are broken, and come to the same results all the same.

A few rounds in each run of the tests. Rounds until time is up, with a report beside pytest's own:
``python -m pytest tests/drill --drill-seconds 3600 --drill-seed 1``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rounds import Ground, Whole, draw, drill, line, named, table
from sweeps import LOCAL, ON_QUEUE, PLACES, SLURM, make_drill_data
from table import TABLE


@pytest.fixture(scope="session")
def drill_ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    """Return what rounds on this machine need."""
    folder = tmp_path_factory.mktemp("drill")
    data = make_drill_data(folder)
    return Ground(folder, data, Whole(folder / "whole", data), {})


@pytest.fixture
def slurm_ground(drill_ground: Ground, slurm: Any, slurm_cluster: dict[str, Any]) -> Ground:
    """Return what rounds on Slurm need."""
    cluster = {**slurm_cluster, "driver": {"memory": "1GB"}}
    return Ground(drill_ground.folder, drill_ground.data, drill_ground.whole, cluster, slurm)


def test_a_seed_draws_the_same_round() -> None:
    drawn = [draw(1, number, PLACES) for number in range(400)]
    assert drawn == [draw(1, number, PLACES) for number in range(400)]
    assert drawn != [draw(2, number, PLACES) for number in range(400)]
    names = {act.name for each in drawn for act, _ in each.acts}
    assert names == {act.name for act in TABLE.values() if act.is_possible()}


def test_local(drill_ground: Ground) -> None:
    acts = ("kill_worker", "fill_disk", "jump_clocks", "kill_driver")
    possible = [name for name in acts if TABLE[name].is_possible()]
    report = drill_ground.play(named(LOCAL, *possible), 0, 0)
    assert not report.fault, report.fault


@pytest.mark.slurm
def test_on_slurm(slurm_ground: Ground) -> None:
    acts = ("cut_network", "cancel_worker_job", "kill_driver")
    report = slurm_ground.play(named(SLURM, *acts), 0, 1)
    assert not report.fault, report.fault


@pytest.mark.timeout(0)
def test_until_time_is_up(drill_ground: Ground, request: pytest.FixtureRequest) -> None:
    """Rounds of ``--drill-seed``; a line of JSON for each in ``--drill-report``."""
    option = request.config.getoption
    seconds = option("--drill-seconds")
    if not seconds:
        pytest.skip("short of --drill-seconds")
    places = option("--drill-on").split(",")
    ground = drill_ground
    if set(places) & set(ON_QUEUE):
        ground = request.getfixturevalue("slurm_ground")
    names = [name for name in option("--drill-acts").split(",") if name]
    unknown = set(names) - set(TABLE)
    assert not unknown, f"--drill-acts: there are {', '.join(TABLE)}"
    report = Path(option("--drill-report"))
    reports = []
    with report.open("a") as file:
        for each in drill(ground, seconds, option("--drill-seed"), places, names):
            reports.append(each)
            file.write(line(each) + "\n")
            file.flush()
    report.with_suffix(".md").write_text(table(reports) + "\n")
    faults = [each for each in reports if each.fault]
    assert not faults, "\n\n".join(f"round {each.number}: {each.fault}" for each in faults)
