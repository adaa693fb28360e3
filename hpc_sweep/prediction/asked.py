"""What predictions are asked for."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from hpc_sweep.choices import Portion
from hpc_sweep.errors import Fault, SpecError, listed
from hpc_sweep.source import is_url
from hpc_sweep.spec import SweepSpec, load_spec
from hpc_sweep.store import Store, real_place

_LOADER = re.compile(r"[\w./-]+:[A-Za-z_]\w*")

SETTABLE = ("cluster.", "output.max_files", "output.group", "data.group", "data.open_options")
"""What a prediction may set; all else is the sweep's."""


@dataclass(frozen=True)
class Asked:
    """What predictions are asked for, as `hpc_sweep.prediction.predict` takes it.

    Attributes
    ----------
    store, data, out : str
        Paths; `data` may be whatever ``data.store`` of a spec may be.
    settings : tuple of str
        Overrides for this run.
    split : str
        Which samples.
    proba : bool
        Whether probabilities.
    trust : tuple of str
        Types that stored models may have.
    partial : bool
        Whether an unfinished store will do.
    ignore_units : bool
        Whether units need not be the same.
    take_over : bool
        Whether to take the lease from whoever has it.
    mixed_versions : bool
        Whether workers may have another minor version of scikit-learn.
    spec : str or None
        File with the sweep's spec and another cluster, as a submission leaves it for its job.
    """

    store: str
    data: str
    out: str
    settings: tuple[str, ...] = ()
    split: Portion = "all"
    proba: bool = False
    trust: tuple[str, ...] = ()
    partial: bool = False
    ignore_units: bool = False
    take_over: bool = False
    mixed_versions: bool = False
    spec: str | None = None

    @property
    def is_loader(self) -> bool:
        """Whether a function gives the data, not a place."""
        return bool(_LOADER.fullmatch(self.data)) and not Path(self.data).exists()

    def absolute(self) -> Asked:
        """Return the same with absolute paths: jobs may begin elsewhere."""
        data = self.data
        if self.is_loader:
            module, _, function = data.rpartition(":")
            if module.endswith(".py"):
                data = f"{Path(module).absolute()}:{function}"
        elif not is_url(data):
            data = str(Path(data).absolute())
        store, out = (str(real_place(place)) for place in (self.store, self.out))
        return replace(self, store=store, data=data, out=out)

    def words(self) -> list[str]:
        """Return the command that asks for it, after ``hpc-sweep``."""
        flags = {
            "--proba": self.proba,
            "--partial": self.partial,
            "--ignore-units": self.ignore_units,
            "--take-over": self.take_over,
            "--mixed-versions": self.mixed_versions,
        }
        return [
            *("predict", self.store, self.data, self.out),
            *(("--split", self.split) if self.split != "all" else ()),
            *(flag for flag, given in flags.items() if given),
            *(word for name in self.trust for word in ("--trust", name)),
            *(word for setting in self.settings for word in ("--set", setting)),
            *(("--spec", self.spec) if self.spec is not None else ()),
        ]

    def spec_for(self, store: Store) -> SweepSpec:
        """Return the spec of the store, with the cluster of this run.

        Raises
        ------
        SpecError
            When a setting is the sweep's.
        """
        faults = [
            Fault(key, f"is the sweep's; a prediction sets {listed(SETTABLE)}")
            for key in (setting.partition("=")[0] for setting in self.settings)
            if not key.startswith(SETTABLE)
        ]
        if faults:
            raise SpecError(faults, "--set")
        return load_spec(self.spec or store.spec, self.settings, store=store.path)
