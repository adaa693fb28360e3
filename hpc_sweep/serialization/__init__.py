"""Fitted models as bytes, and back: by skops, which runs nothing, or by joblib, which may."""

from hpc_sweep.serialization.kinds import from_bytes, made_with, to_bytes, untrusted

__all__ = ["from_bytes", "made_with", "to_bytes", "untrusted"]
