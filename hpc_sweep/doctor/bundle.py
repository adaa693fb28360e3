"""What a bug report needs of a store's runs, in one zip; never keys."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

from hpc_sweep.clusters import JobQueue, make_cluster
from hpc_sweep.errors import StoreError, disk_errors
from hpc_sweep.redaction import without_secrets
from hpc_sweep.store import RunFolder, Store, run_folder
from hpc_sweep.versions import versions

TAIL_BYTES = 100_000
READ_BYTES = 4_000_000
"""A log is searched for secrets from this far before its end."""
MAX_LOGS = 100


def pack(store: Path, file: Path) -> list[str]:
    """Pack a store's run folder for a bug report.

    Spec, scripts of driver and workers, versions, event log, the ends of the newest logs, and
    a list of the run folder's files; certificates, keys and what looks like a password are
    left out.

    Parameters
    ----------
    store : Path
        The store.
    file : Path
        The zip to make; must not exist.

    Returns
    -------
    list of str
        Names in the zip.

    Raises
    ------
    StoreError
        When there is no run folder, or `file` exists.
    """
    run = run_folder(store.absolute())
    if not run.path.is_dir():
        raise StoreError(f"{run.path} does not exist, so there is nothing to pack of {store}")
    content = dict(_content(store, run))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in content.items():
            archive.writestr(name, without_secrets(text))
    try:
        with disk_errors(file), file.open("xb") as opened:
            opened.write(packed.getvalue())
    except FileExistsError:
        raise StoreError(f"{file} exists already; name another file") from None
    except OSError as error:
        raise StoreError(f"{file} cannot be written: {error.strerror}") from None
    return list(content)


def _content(store: Path, run: RunFolder) -> Iterator[tuple[str, str]]:
    yield "versions.json", json.dumps(versions(), indent=2)
    yield "files.txt", "\n".join(_listing(run))
    yield from _worker_script(store)
    yield "store.json", _text(store / "zarr.json")  # the normalised spec, and who made the store
    for path in sorted(run.path.iterdir()):  # spec, scripts, leases, events
        if _is_plain(path) and path.suffix in (".json", ".jsonl", ".sh"):
            yield path.name, _text(path)
    logs = [path for path in run.logs.rglob("*") if _is_plain(path)]
    logs.sort(key=lambda path: path.stat().st_mtime)
    for path in logs[-MAX_LOGS:]:
        yield f"logs/{path.relative_to(run.logs)}", without_secrets(_text(path))[-TAIL_BYTES:]


def _worker_script(store: Path) -> Iterator[tuple[str, str]]:
    """Yield the script of a worker job as the store's spec gives it here and now."""
    try:
        spec = Store.open(store).spec.cluster
        cluster = make_cluster(spec, run_folder(store).path, lambda *a, **k: None)
        if isinstance(cluster, JobQueue):
            yield "worker.sh", cluster.job_script()
    except Exception as error:  # the report is about what does not work
        yield "worker.txt", f"no script of a worker job: {type(error).__name__}: {error}"


def _listing(run: RunFolder) -> Iterator[str]:
    """Yield size and name of the files of a run folder, but for the keys'."""
    for path in sorted(run.path.rglob("*")):
        inside = path.relative_to(run.path)
        if _is_plain(path) and not inside.parts[0].startswith(run.keys.name):  # of all accounts
            yield f"{path.stat().st_size:>12} {inside}"


def _is_plain(path: Path) -> bool:
    """Return whether this is a file itself: a link may lead to anything."""
    return path.is_file() and not path.is_symlink()


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            size = file.seek(0, io.SEEK_END)
            file.seek(max(0, size - READ_BYTES))
            return file.read().decode(errors="replace")
    except OSError as error:  # a colleague's, or none
        return f"cannot be read: {error.strerror}"
