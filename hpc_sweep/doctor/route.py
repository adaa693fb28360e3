"""Whether two hosts reach each other as driver and workers do: TCP, TLS, a certificate each."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

from hpc_sweep.doctor.checks import Seen, fail, ok

CALL_S = 15.0
WORD = b"hpc-sweep\n"


def addresses() -> dict[str, str]:
    """Return the IPv4 address of each network interface that has one."""
    import psutil

    return {
        name: address.address
        for name, found in psutil.net_if_addrs().items()
        for address in found
        if address.family == socket.AF_INET
    }


def own_address(interface: str | None) -> str:
    """Return the address that Dask would use on this host.

    Raises
    ------
    LookupError
        When there is no such interface; says which there are.
    """
    if interface is None:
        return _towards_the_world()
    known = addresses()
    if interface not in known:
        listed = ", ".join(f"{name} ({address})" for name, address in known.items())
        raise LookupError(f"no interface '{interface}' with an IPv4 address; there are {listed}")
    return known[interface]


def _towards_the_world() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unsent:
        try:
            unsent.connect(("8.8.8.8", 80))  # nothing is sent
            return str(unsent.getsockname()[0])
        except OSError:
            return socket.gethostbyname(socket.gethostname())


@contextlib.contextmanager
def listening(interface: str | None, keys: Path) -> Iterator[tuple[str, int] | None]:
    """Answer calls while the context lasts; gives host and port.

    Gives None where nothing can listen on the interface, which `host.interface` tells.
    """
    try:
        server = socket.create_server((own_address(interface), 0))
    except (LookupError, OSError):
        yield None
        return
    context = _context(ssl.PROTOCOL_TLS_SERVER, keys)
    thread = threading.Thread(target=_answer, args=(server, context), daemon=True)
    with server:
        thread.start()
        try:
            yield server.getsockname()
        finally:
            server.shutdown(socket.SHUT_RDWR)  # ends accept()
            thread.join()


def _answer(server: socket.socket, context: ssl.SSLContext) -> None:
    while True:
        try:
            plain, _ = server.accept()
        except OSError:
            return
        with contextlib.suppress(OSError), plain:
            plain.settimeout(CALL_S)
            with context.wrap_socket(plain, server_side=True) as caller:
                caller.sendall(WORD)
                caller.recv(1)


def call(address: tuple[str, int], keys: Path, remedy: str) -> Seen:
    """Call a host that is `listening`, with the run's kind of certificates."""
    place = f"{address[0]}:{address[1]}"
    try:
        with (
            socket.create_connection(address, CALL_S) as plain,
            _context(ssl.PROTOCOL_TLS_CLIENT, keys).wrap_socket(plain) as called,
        ):
            word = called.recv(len(WORD))
    except OSError as error:
        return fail(f"no connection to {place}: {error}", remedy)
    if word != WORD:
        return fail(f"something else answers at {place}", remedy)
    return ok(f"connected to {place} over TLS")


def _context(protocol: int, keys: Path) -> ssl.SSLContext:
    """Return a context in which both sides show a certificate of ours."""
    context = ssl.SSLContext(protocol)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(keys / "ca.pem")
    context.load_cert_chain(keys / "cert.pem", keys / "key.pem")
    return context
