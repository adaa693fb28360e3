"""What ``cluster.options`` may hold: nothing that adds a line or a command to a job script."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from hpc_sweep.errors import Fault

_PLAIN_OPTION = re.compile(r"[\w./:+@=,${}-]*", re.ASCII)

OWN_OPTIONS = frozenset(
    {"record", "changes", "scratch_bytes", "worker_memory_bytes", "job_directives_skip"}
)
SHELL_OPTIONS = frozenset(
    {"python", "shebang", "worker_command", "worker_extra_args", "job_script_prologue"}
    | {"job_extra_directives", "env_extra", "extra", "job_extra"}
)
"""Keys of ``cluster.options`` that dask-jobqueue takes as shell or as whole directives."""


def option_faults(options: Mapping[str, Any]) -> list[Fault]:
    """Return which of ``cluster.options`` could add a line or a command to a script."""
    return [
        Fault(f"cluster.options.{key}", message)
        for key, value in options.items()
        for message in _messages(key, value)
    ]


def _messages(key: str, value: Any) -> Iterator[str]:
    """Yield what is wrong with one of ``cluster.options``, ready for a script."""
    lines = [str(line) for line in (value if isinstance(value, list) else [value])]
    odd = [line for line in lines if not line.isprintable()]
    if key in OWN_OPTIONS:
        yield "is set by us; write cluster.skip, cluster.directives, cluster.scratch"
    elif key in SHELL_OPTIONS and odd:
        yield f"{odd[0]!r} is not one line"
    elif key == "shebang" and not str(value).startswith("#!"):
        yield f"{value!r} must begin with #!"
    elif key in SHELL_OPTIONS or not isinstance(value, str):
        return
    elif not _PLAIN_OPTION.fullmatch(value):
        yield f"{value!r} goes into job scripts: letters, digits and ._:+@=,-/$ can"
