"""Messages between this host and a node: small files in a folder that both should see."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LOOK_EVERY_S = 0.1


def leave(file: Path, facts: dict[str, Any]) -> None:
    """Write a message so that it is there whole or not at all."""
    draft = file.with_name(f".{file.name}.new")
    with draft.open("w", encoding="utf-8") as opened:
        json.dump(facts, opened)
        opened.flush()
        os.fsync(opened.fileno())
    draft.replace(file)


def await_message(
    file: Path, seconds: float, still: Callable[[], bool] = lambda: True
) -> dict[str, Any] | None:
    """Return a message once it is there, or None when it does not come.

    Parameters
    ----------
    file : Path
        Where it is left.
    seconds : float
        How long to wait.
    still : callable
        Asked again and again whether waiting makes sense.
    """
    end = time.monotonic() + seconds
    while True:
        try:
            facts: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):  # a file system may show a file before its content
            if time.monotonic() > end or not still():
                return None
            time.sleep(LOOK_EVERY_S)
        else:
            return facts
