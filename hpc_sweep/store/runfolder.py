"""The run folder beside a store."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hpc_sweep.errors import disk_errors
from hpc_sweep.plan import WHOLE, Share
from hpc_sweep.store.durable import write_durably
from hpc_sweep.store.sharing import group_access, make_folder


@dataclass(frozen=True)
class RunFolder:
    """``STORE.run/``: what a run needs beside the store."""

    path: Path
    share: Share = WHOLE

    @property
    def parts(self) -> Path:
        """Durable files of finished units."""
        return self.path / "parts"

    @property
    def lease(self) -> Path:
        """Which driver works on the store, or on its share of it."""
        return self.path / f"lease{self.share}.json"

    def rivals(self) -> list[Path]:
        """Return leases that exclude this one: all but those of other shares of as many."""
        mine = f"-of-{self.share.count}.json"
        return [
            path
            for path in self.path.glob("lease*.json")
            if path != self.lease and (self.share == WHOLE or not path.name.endswith(mine))
        ]

    @property
    def events(self) -> Path:
        """What happened, as JSON lines."""
        return self.path / f"events{self.share}.jsonl"

    def performance_report(self) -> Path:
        """Return where Dask's report of a run that ends now is kept."""
        moment = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        return self.path / f"performance{self.share}-{moment}.html"

    def performance_reports(self) -> list[Path]:
        """Return those that are kept, of all shares, the last one last."""
        return sorted(self.path.glob("performance*.html"), key=lambda page: page.stem[-15:])

    @property
    def spec(self) -> Path:
        """What ``hpc-sweep submit`` gives to the driver's job."""
        return self.path / "spec.json"

    @property
    def asked(self) -> Path:
        """What a prediction was asked for, where this is the run folder of one."""
        return self.path / "asked.json"

    @property
    def script(self) -> Path:
        """The script of the driver's job."""
        return self.path / "driver.sh"

    @property
    def logs(self) -> Path:
        """Logs of jobs."""
        return self.path / "logs"

    @property
    def copy(self) -> Path:
        """Rechunked data, while the sweep goes on."""
        return self.path / "rechunked.zarr"

    @property
    def keys(self) -> Path:
        """Certificates of a driver of who made the folder; readable by their owner only."""
        return self.path / "keys"

    def make(self, group: int | None = None) -> RunFolder:
        """Create the folder and those below it, all but the keys for a group to share."""
        with disk_errors(self.path):
            for folder in (self.path, self.parts, self.logs):
                make_folder(folder, group)
            self.keys.mkdir(mode=0o700, exist_ok=True)
            if not self.events.exists():
                self.events.touch()  # now, for whom its folder is for
        return self


def run_folder(store: str | Path, share: Share = WHOLE) -> RunFolder:
    """Return the run folder of a store, as the driver of a share of it sees it."""
    path = real_place(store)
    return RunFolder(path.with_name(path.name + ".run"), share)


def write_asked(run: RunFolder, words: Sequence[str], for_group: bool) -> None:
    """Leave in a run folder which command makes predictions, after ``hpc-sweep``."""
    with group_access(for_group):
        write_durably(run.asked, json.dumps(list(words)).encode())


def read_asked(run: RunFolder) -> list[str]:
    """Return what `write_asked` has left; nothing where it is not there, or damaged."""
    with disk_errors(run.asked, "read"):
        try:
            return list(map(str, json.loads(run.asked.read_text())))
        except (FileNotFoundError, ValueError, TypeError):
            return []


def is_free(place: Path) -> bool:
    """Return whether a store can be made at a place: nothing is there, or an empty folder."""
    with disk_errors(place, "read"):
        return not place.exists() or (place.is_dir() and not any(place.iterdir()))


def real_place(store: str | Path) -> Path:
    """Return where a store is, so that by whatever link it is named it has one run folder."""
    path = Path(store).absolute()
    return path.resolve() if os.path.islink(path) else path  # noqa: PTH114, Path's one raises
