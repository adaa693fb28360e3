"""Estimators that misbehave, importable by workers."""

from __future__ import annotations

import ctypes
import errno
import multiprocessing
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin


class Faulty(RegressorMixin, BaseEstimator):
    """Predicts the mean, and does `how` when the first feature of the data has mean above 0."""

    def __init__(self, how: str = "raise", random_state: int | None = None) -> None:
        self.how = how
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> Faulty:
        if X[:, 0].mean() > 0:
            if self.how == "raise":
                raise RuntimeError("the data is too wet")
            if self.how == "kill":
                os._exit(7)
            if self.how == "memory":
                held = np.ones(2_000_000_000, dtype="uint8")  # twice what the worker may have
                time.sleep(60)
                del held
            if self.how == "hang":
                ctypes.PyDLL(None).sleep(600)  # keeps the interpreter's lock: no thread runs
            if self.how == "loop":
                while True:
                    pass
            if self.how == "crash":
                os.kill(os.getpid(), signal.SIGSEGV)
        self.mean_ = y.mean()
        return self

    def predict(self, X: Any) -> Any:
        return np.full(len(X), self.mean_)


class Loud(Faulty):
    """Prints what it does."""

    def fit(self, X: Any, y: Any) -> Loud:
        sys.stdout.write(f"fitting {len(X)} samples\n")
        sys.stdout.flush()
        sys.stderr.write(f"of {X.shape[1]} features\n")
        self.mean_ = y.mean()
        return self


class Renaming(Faulty):
    """Puts `other` in the place of `path` where the first feature has mean above 0."""

    def __init__(self, path: str = "", other: str = "") -> None:
        self.path = path
        self.other = other

    def fit(self, X: Any, y: Any) -> Renaming:
        if X[:, 0].mean() > 0 and Path(self.other).exists():
            Path(self.path).rename(f"{self.path}.before")
            Path(self.other).rename(self.path)
        self.mean_ = y.mean()
        return self


class Counted(RegressorMixin, BaseEstimator):
    """Predicts the mean, notes each fit where the environment says so, and hangs as number 9."""

    def __init__(self, number: int = 0) -> None:
        self.number = number

    def fit(self, X: Any, y: Any) -> Counted:
        with Path(os.environ["TEST_FIT_LOG"]).open("a") as file:
            file.write(f"{self.number} {X[:, 0].sum():.17g}\n")
        time.sleep(600 if self.number == 9 else 0.3)
        self.mean_ = y.mean()
        return self

    def predict(self, X: Any) -> Any:
        return np.full(len(X), self.mean_)


class Waiting(RegressorMixin, BaseEstimator):
    """Predicts the mean, once a file is there."""

    def __init__(self, path: str = "", number: int = 0) -> None:
        self.path = path
        self.number = number

    def fit(self, X: Any, y: Any) -> Waiting:
        if not Path(self.path).exists():
            raise RuntimeError("not yet")
        self.mean_ = y.mean()
        return self

    def predict(self, X: Any) -> Any:
        return np.full(len(X), self.mean_)


class Drawn(RegressorMixin, BaseEstimator):
    """Predicts a random number drawn from its random_state."""

    def __init__(self, random_state: int | None = None) -> None:
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> Drawn:
        self.draw_ = np.random.default_rng(self.random_state).normal()
        return self

    def predict(self, X: Any) -> Any:
        return np.full(len(X), self.draw_)


class Slow(RegressorMixin, BaseEstimator):
    """Predicts the mean; takes its time and notes each fit where the environment says so."""

    def fit(self, X: Any, y: Any) -> Slow:
        time.sleep(float(os.environ.get("TEST_SLOW_FIT", 0)))
        if "TEST_SLOW_LOG" in os.environ:
            with Path(os.environ["TEST_SLOW_LOG"]).open("a") as file:
                file.write(f"{X[:, 0].sum():.17g}\n")
        self.mean_ = y.mean()
        return self

    def predict(self, X: Any) -> Any:
        return np.full(len(X), self.mean_)


class SlowToPredict(RegressorMixin, BaseEstimator):
    """Predicts what depends on samples and fit; takes its time where the environment says so."""

    def fit(self, X: Any, y: Any) -> SlowToPredict:
        self.mean_ = y.mean()
        return self

    def predict(self, X: Any) -> Any:
        time.sleep(float(os.environ.get("TEST_SLOW_PREDICT", 0)))
        return self.mean_ + X[:, 0] * 0.25


class Sleepy(RegressorMixin, BaseEstimator):
    """Predicts the mean after a time that no load changes; without a time, ends its process."""

    def __init__(self, seconds: float | None = None, number: int = 1) -> None:
        self.seconds = seconds
        self.number = number

    def fit(self, X: Any, y: Any) -> Sleepy:
        if self.seconds is None:
            os._exit(9)
        time.sleep(self.seconds)
        self.mean_ = y.mean()
        return self

    def predict(self, X: Any) -> Any:
        return np.full(len(X), self.mean_)


class Lottery(RegressorMixin, BaseEstimator):
    """Predicts what nobody can foresee, and has no random_state."""

    def fit(self, X: Any, y: Any) -> Lottery:
        self.draw_ = np.random.default_rng().normal()
        return self

    def predict(self, X: Any) -> Any:
        return np.full(len(X), self.draw_)


def _deadly(event: str, arguments: Any) -> None:
    """End a worker, or its child, that opens a certain file: a decoder that crashes."""
    deadly = event == "open" and str(arguments[0]) == os.environ.get("TEST_DEADLY_FILE")
    if deadly and multiprocessing.parent_process() is not None:
        os._exit(9)


class Deadly(Slow):
    """Brings with it what ends processes that read."""


if "TEST_DEADLY_FILE" in os.environ:
    sys.addaudithook(_deadly)


def no_score(estimator: Any, X: Any, y: Any) -> float:
    """Score nothing."""
    raise ZeroDivisionError("no score")


class TooMuch(RegressorMixin, BaseEstimator):
    """Predicts the mean; does `how` when fitted on more than `most` samples of a wet place."""

    def __init__(self, how: str = "raise", most: int = 0) -> None:
        self.how = how
        self.most = most

    def fit(self, X: Any, y: Any) -> TooMuch:
        if len(X) > self.most and X[:, 0].mean() > 0:
            Faulty(self.how).fit(X, y)
        self.mean_ = y.mean()
        return self

    def predict(self, X: Any) -> Any:
        return np.full(len(X), self.mean_)


class FaultyByBlocks(Faulty):
    """Trained by blocks: predicts the mean of the last one, and does `how` where `Faulty` does."""

    def __init__(self, how: str = "raise", random_state: int | None = None, shift: float = 0):
        super().__init__(how, random_state)
        self.shift = shift

    def partial_fit(self, X: Any, y: Any) -> FaultyByBlocks:
        self.fit(X, y)
        self.mean_ += self.shift
        return self


class Rare(Faulty):
    """Does `how` only where the mean of the first feature is above `above`."""

    def __init__(self, how: str = "raise", above: float = 0.0) -> None:
        super().__init__(how)
        self.above = above

    def fit(self, X: Any, y: Any) -> Rare:
        if X[:, 0].mean() > self.above:
            Faulty(self.how).fit(X, y)
        self.mean_ = y.mean()
        return self


_looking = threading.local()


def _hindered(event: str, arguments: Any) -> None:
    """Have files below a folder opened late, or not to be written, as a control file says."""
    if event != "open" or getattr(_looking, "now", False):
        return
    control = os.environ.get("TEST_HINDERED", "")
    path, _, flags = arguments
    if ".zarr" not in str(path) or not Path(control).exists():
        return
    _looking.now = True
    try:
        how = Path(control).read_text()
    finally:
        _looking.now = False
    if how.startswith("slow"):
        time.sleep(float(how.removeprefix("slow")))
    elif how == "quota" and flags & os.O_CREAT:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), path)


if "TEST_HINDERED" in os.environ:
    sys.addaudithook(_hindered)
