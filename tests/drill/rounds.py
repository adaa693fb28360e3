"""Rounds of the drill: a sweep, acts that a seed draws, and the oracle's word."""

from __future__ import annotations

import contextlib
import json
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import acts  # noqa: F401, which fills the table
import oracle
from conftest import Spec, hpc_sweep
from sweeps import LOCAL, SUBMITTED, Ended, Sweep, drill_spec, sweep
from table import AFTER, BEFORE, MIDDLE, TABLE, Act

MOST_COMMANDS = 6
"""So often the same command is given after the last act until it has to be complete, not counting
those that bring it on, as jobs of a minute do on a busy machine."""

Moment = tuple[str, float]


@dataclass(frozen=True)
class Drawn:
    """A round that a seed has drawn: where, and which acts when."""

    where: str
    acts: tuple[tuple[Act, Moment], ...]

    def of(self, when: str) -> list[tuple[Act, Moment]]:
        """Return the acts of a time."""
        return [each for each in self.acts if each[0].when == when]


@dataclass
class Report:
    """What a round did and saw."""

    seed: int
    number: int
    where: str
    acts: list[dict[str, str]] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)
    kills: int = 0
    units_again: int = 0
    units_twice: int = 0
    units_lost: int = 0
    seconds: float = 0.0
    fault: str = ""


def draw(
    seed: int, number: int, places: Sequence[str], names: Sequence[str] = (), *, waits: bool = True
) -> Drawn:
    """Draw a round: one to three acts in the middle, and one before or after now and then.

    Parameters
    ----------
    seed, number : int
        The same ones draw the same round.
    places : sequence of str
        Where sweeps may be.
    names : sequence of str
        Acts to draw from; without any all that are possible here.
    waits : bool
        Whether acts that need most of a minute are drawn.
    """
    rng = Random(f"{seed}/{number}")
    where = rng.choice(list(places))
    possible = [
        act
        for act in TABLE.values()
        if where in act.where and (waits or not act.waits) and act.is_possible()
        if not names or act.name in names
    ]

    def some(when: str, count: int) -> list[Act]:
        known = [act for act in possible if act.when == when]
        return [rng.choice(known) for _ in range(count)] if known else []

    drawn = some(BEFORE, rng.random() < 0.3) + some(MIDDLE, rng.choice([1, 1, 2, 3]))
    drawn += some(AFTER, rng.random() < 0.25)
    return Drawn(where, tuple((act, _moment(rng)) for act in drawn))


def named(where: str, *names: str, seed: int = 0) -> Drawn:
    """Return a round of these acts, at moments that a seed draws."""
    rng = Random(f"{seed}/{where}/{names}")
    return Drawn(where, tuple((TABLE[name], _moment(rng)) for name in names))


def _moment(rng: Random) -> Moment:
    """Draw when an act is done: after seconds, units, or result chunks of a command."""
    kind = rng.choice(["seconds", "unit_done", "unit_done", "unit_done", "chunk_folded"])
    return kind, round(rng.uniform(0, 5), 1) if kind == "seconds" else rng.randint(1, 6)


class Whole:
    """Stores of sweeps that nothing was done to, made when they are asked for."""

    def __init__(self, folder: Path, data: Path) -> None:
        self._folder = folder
        self._data = data
        self._made: dict[str, Path] = {}

    def store(self, spec: Spec, environment: dict[str, str]) -> Path:
        """Return the store of a sweep with these models and this search, made on this machine."""
        output = {name: each for name, each in spec["output"].items() if name != "store"}
        key = json.dumps([spec["models"], spec["search"], output])
        if key not in self._made:
            folder = self._folder / str(len(self._made))
            folder.mkdir(parents=True, exist_ok=True)  # of one that took too long
            plain = drill_spec(self._data, folder / "whole.zarr")
            plain |= {name: spec[name] for name in ("models", "search")}
            plain["output"] = {**spec["output"], **plain["output"]}
            file = folder / "whole.yaml"
            file.write_text(json.dumps(plain))  # which is YAML
            done = hpc_sweep("run", file, env={**environment, "TEST_SLOW_FIT": "0"}, timeout=1200)
            assert done.returncode == 0, done.stderr
            self._made[key] = folder / "whole.zarr"
        return self._made[key]


@dataclass(frozen=True)
class Ground:
    """What rounds need: folders, data, a cluster."""

    folder: Path
    data: Path
    whole: Whole
    cluster: Spec
    slurm: Any = None

    def play(self, drawn: Drawn, seed: int, number: int) -> Report:
        """Play a round; its report says what was at fault, if anything was."""
        report = Report(seed, number, drawn.where)
        rng = Random(f"{seed}/{number}/acts")
        begin = time.monotonic()
        folder = self.folder / f"{seed}-{number}"
        with contextlib.ExitStack() as stack:
            try:
                made = stack.enter_context(
                    sweep(drawn.where, folder, self.data, self.cluster, self.slurm)
                )
                seen = _break(made, drawn, rng, report, self.whole)
                report.units_again, report.units_twice = seen.again, seen.twice
                report.units_lost = seen.lost
            except Exception:
                report.fault = traceback.format_exc()
                report.fault += "".join(f"\n--- exit code {e.code}\n{e.text}" for e in made.ended)
            report.codes = [ended.code for ended in made.ended]
            report.kills = made.kills
        report.seconds = round(time.monotonic() - begin, 1)
        return report


def _break(made: Sweep, drawn: Drawn, rng: Random, report: Report, whole: Whole) -> oracle.Seen:
    """Do all that was drawn to a sweep, and bring it to its end."""

    def do(act: Act, moment: str) -> None:
        entry = {"act": act.name, "moment": moment, "did": "…"}
        report.acts.append(entry)
        entry["did"] = act.do(made, rng) or "nothing: it was not there any more"

    names = {act.name for act, _ in drawn.acts}
    for prepare in dict.fromkeys(act.prepare for name, act in TABLE.items() if name in names):
        prepare(made)
    for act, _ in drawn.of(BEFORE):
        do(act, "before")
    made.write_spec()
    for act, (kind, amount) in drawn.of(MIDDLE):
        if not made.is_running():
            _collect(made)
            made.start()
        if kind == "seconds":
            time.sleep(amount)
        else:
            made.reach(kind, int(amount))
        do(act, f"{amount:g} {kind}")
    ended = _collect(made)
    made.undo.close()
    if made.fails or not (ended and made.succeeded(ended)):
        _complete(made)
    seen = oracle.look(made, whole.store(made.spec, made.plain_environment()))
    for act, _ in drawn.of(AFTER):
        do(act, "after")
        seen = oracle.look(made, whole.store(made.spec, made.plain_environment()))
    return seen


def _collect(made: Sweep) -> list[Ended]:
    """Wait for the command that is at work, if one is, and look at its end."""
    ended = made.collect()
    may_be_silent = made.disk_refused and made.where in SUBMITTED
    for each in ended:
        oracle.check_end(each, may_be_silent=may_be_silent)
    return ended


def _complete(made: Sweep) -> None:
    """Give the same command until it is complete."""
    options = ["--retry", "failed"] if made.fails else []
    left = MOST_COMMANDS
    while left:
        done = len(made.events("unit_done"))
        made.start(*options)
        ended = _collect(made)
        if made.succeeded(ended):
            return
        left -= len(made.events("unit_done")) == done
    raise AssertionError(f"not complete after {MOST_COMMANDS} more commands\n{ended}")


def drill(
    ground: Ground,
    seconds: float,
    seed: int,
    places: Sequence[str],
    names: Sequence[str] = (),
    tell: Callable[[Report], None] = lambda report: None,
) -> Iterator[Report]:
    """Play rounds until time is up."""
    end, number = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        report = ground.play(draw(seed, number, places, names), seed, number)
        tell(report)
        yield report
        number += 1


def line(report: Report) -> str:
    """Return a report as a line of JSON."""
    return json.dumps(asdict(report))


def table(reports: Sequence[Report]) -> str:
    """Return how often each act was done, in Markdown."""
    done: Counter[tuple[str, str]] = Counter()
    faults: Counter[tuple[str, str]] = Counter()
    for report in reports:
        for each in report.acts:
            if not each["did"].startswith("nothing"):
                done[each["act"], report.where] += 1
                faults[each["act"], report.where] += bool(report.fault)
    places = sorted({where for _, where in done}, key=lambda where: where != LOCAL)
    lines = [f"| act | {' | '.join(places)} | in rounds at fault |"]
    lines.append("|---|" + "---:|" * (len(places) + 1))
    for name in TABLE:
        counts = [done[name, where] for where in places]
        if any(counts):
            at_fault = sum(faults[name, where] for where in places)
            lines.append(f"| {name} | {' | '.join(map(str, counts))} | {at_fault} |")
    totals = {
        "rounds": len(reports),
        "commands": sum(len(report.codes) for report in reports),
        "kills": sum(report.kills for report in reports),
        "units repeated": sum(report.units_again for report in reports),
        "of them done twice": sum(report.units_twice for report in reports),
        "rounds at fault": sum(bool(report.fault) for report in reports),
        "hours": round(sum(report.seconds for report in reports) / 3600, 2),
    }
    return "\n".join([*lines, "", ", ".join(f"{n} {what}" for what, n in totals.items())])
