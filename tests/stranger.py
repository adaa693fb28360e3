"""What another user of the host tries, in a process of its own that gives up root first.

Reads a JSON object from its standard input: ``uid``; ``ports``, pairs of address and port;
``files`` and ``sockets``, paths. Prints as JSON, by kind of attempt, what it got at.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import socket
import ssl
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from distributed import Security
from distributed.core import connect, send_recv

# not /sitemap.json: Dask serves it wherever it listens; it lists nothing but itself
ROUTES = (
    *("/", "/status", "/workers", "/info/main/workers.html", "/info/logs.html"),
    "/json/identity.json",
    *("/json/counts.json", "/metrics", "/health", "/api/v1/retire_workers"),
    *("/individual-plots.json", "/eventstream", "/statics/css/base.css"),
    "/statics/..%2f..%2f..%2f..%2f..%2f..%2f..%2f..%2f..%2f..%2fetc/passwd",
)


def contexts() -> dict[str, ssl.SSLContext]:
    """Return ways to speak TLS without a key of the run, which do not ask who answers."""
    anonymous, own = (
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
    )
    for context in (anonymous, own):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    made = Security.temporary()
    folder = Path(f"/tmp/stranger-{os.getpid()}")
    folder.mkdir(mode=0o700)
    (folder / "cert").write_text(made.tls_client_cert)
    (folder / "key").write_text(made.tls_client_key)
    own.load_cert_chain(folder / "cert", folder / "key")
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    return {"anonymous tls": anonymous, "own certificate": own}


async def talks(scheme: str, host: str, port: int, **arguments: Any) -> bool:
    """Return whether a server of Dask answers a question within some seconds."""

    async def ask() -> bool:
        comm = await connect(f"{scheme}://{host}:{port}", timeout=3, **arguments)
        return "type" in await send_recv(comm, op="identity")

    # not wait_for: a server that takes everything and says nothing cannot be cancelled
    asking = asyncio.create_task(ask())
    done, _ = await asyncio.wait([asking], timeout=5)
    return bool(done) and asking.exception() is None and asking.result()


def pages(host: str, port: int, context: ssl.SSLContext | None) -> list[str]:
    """Return the routes that give something."""
    found = []
    for route in ROUTES:
        connection = (
            http.client.HTTPConnection(host, port, timeout=3)
            if context is None
            else http.client.HTTPSConnection(host, port, timeout=3, context=context)
        )
        try:
            connection.request("GET", route)
            if connection.getresponse().status < 400:
                found.append(f"{host}:{port}{route}")
        except http.client.HTTPException:
            pass
        except OSError:
            break  # it does not speak HTTP
        finally:
            connection.close()
    return found


async def attempts(target: dict[str, Any]) -> dict[str, list[str]]:
    """Try everything."""
    ports = [(host, port) for host, port in target["ports"]]
    tls = contexts()
    ways = [("plain", "tcp", {}), *((name, "tls", {"ssl_context": c}) for name, c in tls.items())]
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(len(ports) * len(ways)) as threads:
        asked = [
            loop.run_in_executor(threads, pages, *place, context)
            for place in ports
            for context in (None, *tls.values())
        ]
        talked = await asyncio.gather(
            *(talks(scheme, *place, **how) for _, scheme, how in ways for place in ports)
        )
        found = {"pages": [page for some in await asyncio.gather(*asked) for page in some]}
    for index, (name, _, _) in enumerate(ways):
        answers = talked[index * len(ports) :]
        found[name] = [f"{h}:{p}" for (h, p), yes in zip(ports, answers, strict=False) if yes]
    return found


def opened(path: str) -> bool:
    """Return whether a file or folder can be read."""
    try:
        if Path(path).is_dir():
            return any(Path(path).iterdir())
        with Path(path).open("rb") as file:
            return bool(file.read(1))
    except OSError:
        return False


def connected(path: str) -> bool:
    """Return whether a Unix socket lets this user in."""
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
    except OSError:
        return False
    return True


async def main() -> None:
    """Give up root, and begin."""
    target = json.load(sys.stdin)
    # once, while files of root can still be imported
    await talks("tcp", "127.0.0.1", 9)
    await talks("tls", "127.0.0.1", 9, ssl_context=contexts()["own certificate"])
    await asyncio.get_running_loop().run_in_executor(None, pages, "127.0.0.1", 9, None)
    os.setgroups([])
    os.setgid(target["uid"])
    os.setuid(target["uid"])
    found = await attempts(target)
    found["files"] = [path for path in target["files"] if opened(path)]
    found["sockets"] = [path for path in target["sockets"] if connected(path)]
    print(json.dumps(found), flush=True)  # noqa: T201
    os._exit(0)  # whatever still waits


if __name__ == "__main__":
    asyncio.run(main())
