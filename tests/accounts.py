"""Commands as other local accounts; needs root."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest


def closed_folders() -> list[Path]:
    """Return the topmost folders that keep other accounts from this interpreter."""
    places = [Path(sys.executable), Path(sys.executable).resolve(), Path(sys.base_prefix)]
    places += [Path(sys.prefix), Path(__file__).resolve()]
    closed = set()
    for place in places:
        for folder in reversed(place.parents):
            if not folder.stat().st_mode & 0o001:
                closed.add(folder)
                break
    return sorted(closed)


def as_account(uid: int, gid: int, groups: Sequence[int], command: Sequence[object]) -> list[str]:
    """Return a command that runs another one as an account.

    The account needs no entry in a file. Where the interpreter lies in a folder that is closed
    to others (root's home), that folder is opened in a mount namespace of the process alone.
    """
    if os.geteuid() != 0 or not shutil.which("setpriv") or not shutil.which("unshare"):
        pytest.skip("needs root, setpriv and unshare")
    script = ["mount -t tmpfs tmpfs /mnt", "here=$PWD"]
    for number, folder in enumerate(closed_folders()):
        # what lies in it appears again below an open folder of the same name
        there, kept = shlex.quote(str(folder)), f"/mnt/{number}"
        script += [
            f"mkdir {kept} && mount --bind {there} {kept}",
            f"mount -t tmpfs -o mode=755 tmpfs {there}",
            f"cd {kept}",
            f"for name in $(find . -mindepth 1 -maxdepth 1 -type d); do mkdir {there}/$name && "
            f"mount --rbind $name {there}/$name; done",
        ]
    who = [f"--reuid={uid}", f"--regid={gid}", f"--groups={','.join(map(str, [gid, *groups]))}"]
    words = ["setpriv", *who, "--inh-caps=-all", *map(str, command)]
    script.append("cd $here")
    script.append(f"exec {shlex.join(words)}")
    return ["unshare", "--mount", "sh", "-ec", "\n".join(script)]


def environment(home: Path) -> dict[str, str]:
    """Return the environment of such an account."""
    kept = ("PATH", "LANG", "LC_", "OPENBLAS_")  # other kernels give other last bits
    names = {name: text for name, text in os.environ.items() if name.startswith(kept)}
    return {**names, "HOME": str(home), "USER": "somebody", "LOGNAME": "somebody"}


@dataclass(frozen=True)
class Account:
    """An account by its numbers, with a folder to call commands from."""

    uid: int
    groups: tuple[int, ...]
    home: Path

    def start(self, *command: object) -> subprocess.Popen[str]:
        """Start a command as this account, whose umask gives nothing to anybody else."""
        return subprocess.Popen(
            as_account(self.uid, self.uid, self.groups, command),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(self.home),
            cwd=self.home,
            umask=0o077,
            process_group=0,
        )

    def run(self, *command: object) -> subprocess.CompletedProcess[str]:
        """Run a command as this account and wait for it."""
        with self.start(*command) as process:
            out, err = process.communicate(timeout=240)
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    def sweep(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Run the command line as this account."""
        return self.run(sys.executable, "-m", "hpc_sweep", *arguments)
