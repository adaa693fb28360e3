"""What fails on a damaged store is told with the file at fault."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from hpc_sweep.errors import DamagedError, StoreError, SweepError, disk_cause
from hpc_sweep.keeping.verify import verify


@contextlib.contextmanager
def explained(store: str | Path) -> Iterator[None]:
    """Context for whatever reads results: libraries say neither which file it was nor what helps.

    Parameters
    ----------
    store : path
        Which store is read.

    Raises
    ------
    StoreError
        With the first thing that `verify` finds, where something failed and it finds anything.
    """
    try:
        yield
    except Exception as error:
        known = isinstance(error, SweepError) and not isinstance(error, DamagedError)
        findings = [] if known or disk_cause(error) else verify(store).findings
        if not findings:
            raise
        first, more = findings[0], len(findings) - 1
        also = f"; hpc-sweep verify {store} tells {more} more" if more else ""
        raise StoreError(f"{first.file} {first.fault}; {first.remedy}{also}") from error
