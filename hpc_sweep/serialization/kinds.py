"""The two ways in which models are stored."""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Collection, Mapping
from typing import Any

from hpc_sweep.errors import StoreError, UntrustedError, listed
from hpc_sweep.serialization.trusted import TRUSTED
from hpc_sweep.versions import installed

RECORDED = ("scikit-learn", "numpy", "scipy")
"""Libraries whose versions are kept with a model, besides the one that stored it."""

JOBLIB_LEVEL = 3
SKOPS_LEVEL = 6


def made_with(kind: str) -> Mapping[str, str]:
    """Return the versions of libraries that models are stored with here."""
    return {name: installed(name) for name in (*RECORDED, kind)}


def to_bytes(model: Any, kind: str) -> bytes:
    """Return a fitted model as bytes.

    Parameters
    ----------
    model : estimator
        Fitted.
    kind : str
        ``skops`` or ``joblib``.

    Raises
    ------
    Exception
        What the library raises of what it cannot store.
    """
    if kind == "joblib":
        import joblib

        buffer = io.BytesIO()
        joblib.dump(model, buffer, compress=JOBLIB_LEVEL)
        return buffer.getvalue()
    from skops.io import dumps

    content: bytes = dumps(model, compression=zipfile.ZIP_DEFLATED, compresslevel=SKOPS_LEVEL)
    return content


def from_bytes(content: bytes, kind: str, trust: Collection[str], where: str) -> Any:
    """Return a model from its bytes; nothing that they say is run but for trusted types.

    Parameters
    ----------
    content : bytes
        Of `to_bytes`.
    kind : str
        ``skops`` or ``joblib``.
    trust : collection of str
        Names of types besides `TRUSTED`; ``joblib`` lets such models be loaded, whatever they run.
    where : str
        What messages call it.

    Raises
    ------
    UntrustedError
        When it has types that nobody trusts.
    StoreError
        When it is a pickle that nobody trusts, or no model.
    """
    from sklearn.exceptions import InconsistentVersionWarning

    with warnings.catch_warnings():
        # whoever loads models says that once of all of them
        warnings.simplefilter("ignore", InconsistentVersionWarning)
        load = _by_joblib if kind == "joblib" else _by_skops
        return load(content, trust, where)


def _by_skops(content: bytes, trust: Collection[str], where: str) -> Any:
    from skops.io import loads
    from skops.io.exceptions import UntrustedTypesFoundException

    try:
        return loads(content, trusted=[*TRUSTED, *trust])
    except UntrustedTypesFoundException:
        names = listed(repr(name) for name in untrusted(content, trust))
        raise UntrustedError(
            f"{where} has types that nobody said are to be trusted: {names}. Loading may run their "
            "code; if you know them and trust who made the file, name them: trust=[…] of "
            "load_model, --trust NAME of commands"
        ) from None
    except Exception as error:  # of what was made to harm, whatever its parts raise
        raise _no_model(where, "skops", error) from error


def untrusted(content: bytes, trust: Collection[str]) -> list[str]:
    """Return the types of a model stored by skops that nobody trusts, sorted."""
    from skops.io import get_untrusted_types

    return sorted(set(get_untrusted_types(data=content)) - {*TRUSTED, *trust})


def _by_joblib(content: bytes, trust: Collection[str], where: str) -> Any:
    if "joblib" not in trust:
        raise StoreError(
            f"{where} is a pickle of joblib: to load it runs whatever code it has. If you trust "
            "who made it, say so: trust=['joblib'] of load_model, --trust joblib of commands; "
            "output.models: skops stores models that run nothing"
        )
    import joblib

    try:
        return joblib.load(io.BytesIO(content))
    except Exception as error:
        raise _no_model(where, "joblib", error) from error


def _no_model(where: str, kind: str, error: Exception) -> StoreError:
    words = " ".join(f"{type(error).__name__}: {error}".split())
    return StoreError(f"{where} is no model that {kind} can load here: {words}")
