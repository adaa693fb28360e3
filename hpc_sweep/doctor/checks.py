"""A check and its verdict. Standard library only: a node may lack the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from hpc_sweep.errors import Interrupted


class Verdict(StrEnum):
    """What a check came to."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Seen:
    """What one look at one thing showed.

    Attributes
    ----------
    verdict : Verdict
        ``fail`` is what would stop a run.
    text : str
        What was seen, against its limit.
    remedy : str
        What to do about it.
    """

    verdict: Verdict
    text: str
    remedy: str = ""


@dataclass(frozen=True)
class Check:
    """One line of the doctor's table: what was looked at, and on which host."""

    name: str
    where: str
    verdict: Verdict
    seen: str
    remedy: str = ""


def ok(text: str) -> Seen:
    """Return that nothing is wrong."""
    return Seen(Verdict.OK, text)


def warn(text: str, remedy: str) -> Seen:
    """Return what makes a run slower or more fragile."""
    return Seen(Verdict.WARN, text, remedy)


def fail(text: str, remedy: str) -> Seen:
    """Return what would stop a run."""
    return Seen(Verdict.FAIL, text, remedy)


def skipped(text: str) -> Seen:
    """Return that nothing was looked at, and why."""
    return Seen(Verdict.SKIPPED, text)


def look(name: str, where: str, probe: Callable[[], Seen]) -> Check:
    """Return the check that a probe makes; one that breaks has failed."""
    try:
        seen = probe()
    except Interrupted:
        raise
    except Exception as error:  # whatever it is, the other checks go on
        text = " ".join(str(error).split())
        seen = fail(f"{type(error).__name__}: {text}", "see the message")
    return Check(name, where, seen.verdict, seen.text, seen.remedy)


def worst(checks: Iterable[Check]) -> Verdict:
    """Return the verdict on all checks together."""
    verdicts = {check.verdict for check in checks}
    return next((v for v in (Verdict.FAIL, Verdict.WARN) if v in verdicts), Verdict.OK)
