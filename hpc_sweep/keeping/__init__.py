"""Keeping results: whether a store is sound, and one file to keep it in."""

from hpc_sweep.keeping.archiving import Archive, archive
from hpc_sweep.keeping.explained import explained
from hpc_sweep.keeping.findings import Finding, Verification
from hpc_sweep.keeping.verify import verify

__all__ = ["Archive", "Finding", "Verification", "archive", "explained", "verify"]
