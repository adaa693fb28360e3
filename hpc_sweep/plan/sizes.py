"""Bytes as people read them."""

from __future__ import annotations


def format_bytes(count: int) -> str:
    """Return bytes as people read them (decimal units)."""
    value, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while value >= 999.5 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return (
        f"{value:.0f} {units[0]}" if units[0] == "B" or value >= 100 else f"{value:.1f} {units[0]}"
    )
