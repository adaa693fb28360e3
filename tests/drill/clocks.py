"""Another time of day than the machine's for the processes of a sweep, by machine (`clock.c`)."""

from __future__ import annotations

import shutil
import socket
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("clock.c")
NODES = ("node1", "node2", "node3")


def can_compile() -> bool:
    """Return whether there is a compiler."""
    return shutil.which("gcc") is not None


def set_up(folder: Path) -> dict[str, str]:
    """Return the environment of processes whose clocks `jump` sets; they are right so far.

    Parameters
    ----------
    folder : Path
        One that all machines see.
    """
    library, clocks = folder / "clock.so", folder / "clocks"
    flags = ["-O2", "-shared", "-fPIC"]
    subprocess.run(["gcc", *flags, "-o", str(library), str(SOURCE)], check=True)
    clocks.mkdir()
    for host in (socket.gethostname(), *NODES):
        (clocks / host).write_bytes(bytes(8))
    return {"LD_PRELOAD": str(library), "TEST_CLOCKS": str(clocks)}


def jump(folder: Path, seconds: int, host: str = "") -> None:
    """Set the clock of a machine, or of all, so many seconds ahead of what is right."""
    for file in (folder / "clocks").iterdir():
        if host in ("", file.name):
            with file.open("r+b") as opened:  # it is in the memory of those processes
                opened.write(seconds.to_bytes(8, "little", signed=True))
