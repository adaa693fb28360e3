"""What all sections of a spec are."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A part of the spec: frozen, and unknown keys are faults."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)
