"""The folder of model files beside a store: one file a result chunk."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpc_sweep.choices import KEPT_MODELS
from hpc_sweep.errors import StoreError, disk_errors
from hpc_sweep.plan import Chunk
from hpc_sweep.store.modelfile import Kept, ModelFile, write_models
from hpc_sweep.store.sharing import make_folder
from hpc_sweep.store.store import Store

_NAME = re.compile(r"\d+(?:\.\d+)*\.(?P<kind>" + "|".join(KEPT_MODELS) + ")")


@dataclass(frozen=True)
class ModelFiles:
    """``STORE.models/``: the fitted best estimators of a store that keeps them.

    Attributes
    ----------
    store : Store
        The store.
    kind : str
        ``skops`` or ``joblib``.
    """

    store: Store
    kind: str

    @classmethod
    def of(cls, store: Store) -> ModelFiles | None:
        """Return those of a store; None where it keeps none."""
        kind = store.spec.output.models
        return cls(store, kind) if kind in KEPT_MODELS else None

    @property
    def folder(self) -> Path:
        """Where they are."""
        return models_folder(self.store)

    def path(self, chunk: Chunk) -> Path:
        """Return the file of a result chunk."""
        return self.folder / f"{'.'.join(map(str, chunk)) or '0'}.{self.kind}"

    def remedy(self, chunk: Chunk) -> str:
        """Return what to do where the file of a result chunk is damaged."""
        file = self.path(chunk)
        return f"delete {file} and run the sweep's command again: these models are fitted again"

    def has(self, chunk: Chunk) -> bool:
        """Return whether a result chunk has its file."""
        with disk_errors(self.folder, "read"):
            return self.path(chunk).exists()

    def open(self, chunk: Chunk) -> ModelFile:
        """Open the file of a result chunk.

        Raises
        ------
        StoreError
            When it is missing, damaged, or of another store.
        """
        path, remedy = self.path(chunk), self.remedy(chunk)
        file = ModelFile(path, self.store.n_partitions(chunk), remedy)
        if file.header.get("store") != self.store.header.id:
            raise StoreError(f"{path} has models of another store; {remedy}")
        return file

    def opened(self, chunk: Chunk) -> ModelFile | None:
        """Return the file of a result chunk; None where it is of no use."""
        try:
            return self.open(chunk)
        except StoreError:
            return None

    def write(self, chunk: Chunk, kept: Sequence[Kept]) -> None:
        """Write the file of a result chunk; whoever folds that is its only writer."""
        with disk_errors(self.folder):
            if not self.folder.is_dir():
                state = self.store.path.stat()
                shared = bool(self.store.spec.output.group)
                make_folder(self.folder, state.st_gid if shared else None)
        about = {"store": self.store.header.id, "kind": self.kind, "chunk": list(chunk)}
        write_models(self.path(chunk), about, self.store.n_partitions(chunk), kept)


def has_models(store: Store, chunk: Chunk) -> bool:
    """Return whether a result chunk has its file of models, or needs none."""
    files = ModelFiles.of(store)
    return files is None or files.has(chunk)


def models_folder(store: Store) -> Path:
    """Return the folder for models beside a store."""
    return store.path.with_name(store.path.name + ".models")


def remove_other_models(store: Store) -> None:
    """Remove files of models that are not of this store, or of a kind that it does not keep.

    What is left by a killed writer goes too; files of other names stay.
    """
    folder, files = models_folder(store), ModelFiles.of(store)
    if not folder.is_dir():
        return
    with disk_errors(folder):
        mine = {} if files is None else {files.path(chunk): chunk for chunk in all_chunks(store)}
        for path in folder.iterdir():
            unfinished = path.name.startswith(".") and path.name.endswith(".tmp")
            foreign = _NAME.fullmatch(path.name) is not None and path not in mine
            if unfinished or foreign:
                path.unlink(missing_ok=True)
        if not any(folder.iterdir()):
            folder.rmdir()


def all_chunks(store: Store) -> list[Chunk]:
    """Return all result chunks of a store, in order."""
    return list(np.ndindex(*store.grid.chunk_grid(store.header.chunks)))
