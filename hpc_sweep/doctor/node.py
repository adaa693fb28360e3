"""What runs in the doctor's small job: looks at the node, and leaves what it saw.

It says hello before it imports anything heavy, so that a slow file system shows as such.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from hpc_sweep.doctor import host
from hpc_sweep.doctor.checks import Check, look
from hpc_sweep.doctor.messages import await_message, leave
from hpc_sweep.doctor.route import call, listening
from hpc_sweep.processes import FILES_PER_WORKER

PING_S = 150.0


def main(folder: Path) -> None:
    """Answer the request in a folder."""
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    with listening(request["interface"], folder / "keys") as address:
        leave(folder / "hello.json", {"host": socket.gethostname(), "address": address})
        ping = await_message(folder / "ping.json", PING_S)
        leave(folder / "pong.json", {"time": time.time(), "seen": ping is not None})
        checks = _checks(request, folder)
        answer = {"checks": [asdict(check) for check in checks], "versions": _versions()}
        leave(folder / "answer.json", answer)


def _checks(request: dict[str, Any], folder: Path) -> list[Check]:
    here = socket.gethostname()
    own = folder / "node"
    own.mkdir()
    checks = [
        look("environment", here, partial(host.environment, request["workers"], request["jobs"]))
    ]
    if request["spec"] is not None:
        from hpc_sweep.spec import SweepSpec

        spec = SweepSpec.model_validate_json(request["spec"])
        checks += [
            look("data", here, partial(host.data, spec)),
            look("models", here, partial(host.models, spec)),
        ]
    checks += [
        look("durable writes", here, partial(host.durable_writes, own)),
        look(
            "open files",
            here,
            partial(host.open_files, request["workers_per_job"], FILES_PER_WORKER),
        ),
        look("local scratch", here, partial(host.scratch, *request["scratch"])),
        look("interface", here, partial(host.interface, request["interface"], "cluster.interface")),
    ]
    if request["driver"] is not None:
        driver = (str(request["driver"][0]), int(request["driver"][1]))
        remedy = (
            "hpc-sweep submit puts the driver on a node; to run it from there, set "
            f"cluster.scheduler_interface to one that nodes reach ({request['interfaces']}), or "
            "say outside_jobs: refuse where it is never run from there"
        )
        route = partial(call, driver, folder / "keys", remedy)
        checks.append(look("route to the driver", here, route))
    return checks


def _versions() -> dict[str, str]:
    try:
        from hpc_sweep.versions import versions

        return versions()
    except Exception as error:  # a library is missing there; the environment's check says which
        return {"error": str(error)}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
