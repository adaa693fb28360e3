"""Types of stored models that a user's own spec trusts, signed in the store by the user's key.

A store may come from anybody, so what it says of itself lets nothing be loaded. A run whose spec
has ``output.trust`` leaves an HMAC-SHA256 (RFC 2104) of the store's id and these types, by a secret
key that lies in the user's data folder; whoever loads models counts what their own key has signed.
The signature is of names; who may have written the files `ModelFile.doubt` says.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import stat
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from hpc_sweep.errors import SweepError
from hpc_sweep.spec import OutputSpec
from hpc_sweep.store.header import changed_header
from hpc_sweep.store.store import Store

KEY_BYTES = 32
_PURPOSE = "hpc_sweep: models of this store may have these types"


class NoKeyError(SweepError):
    """There is no key of this user's alone; the message says why."""


def key_file() -> Path:
    """Return where this user's key is, which may not exist.

    Raises
    ------
    NoKeyError
        When the user has no home.
    """
    base = Path(os.environ.get("XDG_DATA_HOME", ""))
    try:
        data = base if base.is_absolute() else Path("~/.local/share").expanduser()
    except RuntimeError as error:
        raise NoKeyError(f"there is no folder for a key: {error}") from None
    return data / "hpc-sweep" / "trust.key"


def read_key() -> bytes:
    """Return this user's key.

    Raises
    ------
    NoKeyError
        When there is none, or others may have it.
    """
    file = key_file()
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            state = os.fstat(descriptor)
            fault = _fault(state)
            key = b"" if fault else os.read(descriptor, KEY_BYTES + 1)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise NoKeyError(f"you have no key, {file} does not exist") from None
    except OSError as error:
        raise NoKeyError(f"your key {file} cannot be read: {error.strerror}") from error
    if not fault and len(key) != KEY_BYTES:
        fault = f"does not have {KEY_BYTES} bytes"
    if fault:
        raise NoKeyError(
            f"the key {file} {fault}; remove it, and the next run of a spec with output.trust "
            "makes another"
        )
    return key


def _fault(state: os.stat_result) -> str:
    """Return why what is in a file is no secret of this user's, or ``""``."""
    if not stat.S_ISREG(state.st_mode):
        return "is no file"
    if state.st_uid != os.geteuid():
        return "belongs to somebody else"
    if state.st_mode & 0o077:
        return f"can be read or written by others (mode {stat.S_IMODE(state.st_mode):04o})"
    return ""


def _made_key() -> bytes:
    """Return this user's key, made now if there is none."""
    file = key_file()
    if not os.path.lexists(file):
        try:
            _make_key(file)
        except OSError as error:
            raise NoKeyError(f"no key can be made at {file}: {error.strerror}") from error
    return read_key()


def _make_key(file: Path) -> None:
    missing = [folder for folder in file.parents if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(mode=0o700, exist_ok=True)
    if file.parent.stat().st_uid != os.geteuid():  # such as a home that sudo has kept
        raise NoKeyError(f"no key is made at {file}: its folder belongs to somebody else")
    draft = file.with_name(f".{file.name}.{secrets.token_hex(8)}.tmp")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(secrets.token_bytes(KEY_BYTES))
            opened.flush()
            os.fsync(descriptor)
        try:
            os.link(draft, file)  # whole at once, and never in the place of another key
        except FileExistsError:
            return
    finally:
        draft.unlink(missing_ok=True)


def types_to_sign(output: OutputSpec) -> list[str]:
    """Return the types that a run with a spec signs, sorted."""
    return _harmless(output.trust) if output.models == "skops" else []


def _harmless(types: Iterable[str]) -> list[str]:
    """Return the types that need no word each time: that do not run whatever a file says.

    Pickles do, and Python's own modules can: ``functools.partial``, ``operator.methodcaller``.
    """
    never = {"joblib", *sys.stdlib_module_names}
    return sorted({name for name in types if name.partition(".")[0] not in never})


def sign_types(store: Store, output: OutputSpec, say: Callable[[str], None]) -> None:
    """Sign the types that the spec of a run trusts, in the place of what was signed before.

    Parameters
    ----------
    store : Store
        The run has its lease.
    output : OutputSpec
        Of the run's spec, never of the store's.
    say : callable
        Told where nothing can be signed.
    """
    types, signed = types_to_sign(output), {}
    if types:
        try:
            signature = _signature(_made_key(), store.header.id, types)
            signed = {"types": types, "signature": signature}
        except NoKeyError as error:
            say(f"output.trust will not count when these models are loaded: {error}")
    with changed_header(store.path) as header:
        header["signed_types"] = signed


def signed_types(store: Store) -> tuple[str, ...]:
    """Return the types that a spec of this user's trusts in models of a store.

    Raises
    ------
    NoKeyError
        When there are none, or that cannot be known.
    """
    match store.header.signed_types:
        case {"types": [*types], "signature": str(signature)} if (
            all(isinstance(name, str) for name in types) and signature.isascii()
        ):
            key = read_key()
        case _:
            raise NoKeyError("it is not signed")
    if not hmac.compare_digest(signature, _signature(key, store.header.id, types)):
        raise NoKeyError(f"it is not signed by your key, {key_file()}")
    return tuple(_harmless(types))


def lacks_signature(store: Store, output: OutputSpec) -> bool:
    """Return whether a run with a spec would sign other types than are signed."""
    try:
        return list(signed_types(store)) != types_to_sign(output)
    except NoKeyError:
        return bool(types_to_sign(output))


def _signature(key: bytes, store: str, types: Iterable[str]) -> str:
    said = json.dumps([_PURPOSE, store, sorted({*types})])
    return hmac.new(key, said.encode(), hashlib.sha256).hexdigest()
