"""What stored models may have besides scikit-learn's own types."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hpc_sweep.store import NoKeyError, Store, signed_types


@dataclass(frozen=True)
class Trust:
    """Types that whoever loads models trusts.

    Attributes
    ----------
    named : tuple of str
        Said now; ``joblib`` among them lets pickles be loaded.
    signed : tuple of str
        Said by a spec of theirs to the run that has made the store: of files that nobody else may
        write.
    why_none : str
        Why nothing is signed, although the store's spec names types; else ``""``.
    """

    named: tuple[str, ...] = ()
    signed: tuple[str, ...] = ()
    why_none: str = ""

    @classmethod
    def of(cls, store: Store, named: Sequence[str]) -> Trust:
        """Return what this user trusts in a store.

        Parameters
        ----------
        store : Store
            What it says of itself counts only where it is signed by this user's key.
        named : sequence of str
            The user's word now; one name may be a str.
        """
        words = (named,) if isinstance(named, str) else tuple(named)
        if store.spec.output.models != "skops" or not store.spec.output.trust:
            return cls(words)
        try:
            return cls(words, signed_types(store))
        except NoKeyError as error:
            return cls(words, why_none=str(error))

    def types(self, doubt: str) -> tuple[str, ...]:
        """Return the types that a file may have, by why another user may have written it."""
        return self.named if doubt else (*self.named, *self.signed)

    def told(self, doubt: str) -> str:
        """Return why what the store's spec trusts does not count, for a message, or ``""``."""
        why = self.why_none or (doubt if self.signed else "")
        return f"; what output.trust of its spec names does not count here: {why}" if why else ""
