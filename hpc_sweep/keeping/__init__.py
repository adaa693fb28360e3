"""Keeping results: whether a store is sound, and one file to keep it in."""

from hpc_sweep.keeping.verify import Finding, Verification, verify

__all__ = ["Finding", "Verification", "verify"]
