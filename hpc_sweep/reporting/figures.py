"""All figures of a report."""

from __future__ import annotations

from dataclasses import replace

from hpc_sweep.reporting import compared, mapped
from hpc_sweep.reporting.drawing import Picture
from hpc_sweep.reporting.findings import Findings
from hpc_sweep.reporting.working import Working


def all_figures(found: Findings, worked: Working | None) -> list[Picture]:
    """Return all figures of a report, each key once."""
    pictures: dict[str, Picture] = {}
    for source in (
        mapped.answer_figures(found),
        mapped.parameter_figures(found),
        compared.response_figures(found),
        compared.model_figures(found),
        compared.weakness_figures(found),
        compared.held_out_figures(found),
        mapped.other_metric_figures(found),
        compared.worker_figures(worked),
    ):
        for picture in source:
            same = sum(key.partition("~")[0] == picture.key for key in pictures)
            key = f"{picture.key}~{same + 1}" if same else picture.key
            pictures[key] = replace(picture, key=key)
    return list(pictures.values())
