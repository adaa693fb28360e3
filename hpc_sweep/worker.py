"""``python -m hpc_sweep.worker``: ``dask worker`` for whole nodes, with the same options.

Its workers come from a fork server that has the libraries imported (`hpc_sweep.processes`),
and its limit of open files is raised to what they need.
"""

from __future__ import annotations

import os
import sys

from hpc_sweep import jobend, processes
from hpc_sweep.errors import ClusterError


def main(arguments: list[str] | None = None) -> None:
    """Start the workers that the options tell, and stay until they end."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        processes.raise_open_files(_count(arguments))
    except ClusterError as error:
        sys.exit(f"error: {error}")
    jobend.fix()
    # it imports the libraries while this process imports Dask
    processes.start_fork_server()
    os.environ["DASK_DISTRIBUTED__WORKER__MULTIPROCESSING_METHOD"] = "forkserver"
    from distributed.cli.dask_worker import main as dask_worker
    from distributed.utils import get_mp_context

    from hpc_sweep.clusters.timing import keep_time

    keep_time()
    get_mp_context()  # names its own libraries to the fork server, once
    processes.start_fork_server()
    dask_worker(arguments)


def _count(arguments: list[str]) -> int:
    """Return how many workers the options ask for."""
    for option, value in zip(arguments, [*arguments[1:], ""], strict=True):
        name, equals, text = option.partition("=")
        if name == "--nworkers":
            number = text if equals else value
            return int(number) if number.isdecimal() else os.cpu_count() or 1
    return 1


if __name__ == "__main__":
    main()
