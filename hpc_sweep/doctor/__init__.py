"""Doctor: what would stop a run on this machine, seen from here and from inside a small job."""
