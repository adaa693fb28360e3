"""Which arrays a store has: names, dimensions, types, fills and attributes.

Names follow scikit-learn's ``cv_results_``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hpc_sweep.candidates import Candidate, is_numeric, parameter_names
from hpc_sweep.choices import STATUS_MEANINGS

NAN = float("nan")


@dataclass(frozen=True)
class Array:
    """One result array, chunked like the partitions.

    Attributes
    ----------
    name : str
        Its name in the store.
    dims : tuple of str
        Dimensions behind the partition dimensions.
    dtype : str
        A NumPy dtype's name, or ``str`` for text of variable length.
    fill : object
        What a pending cell reads as.
    attributes : dict
        CF-style attributes.
    """

    name: str
    dims: tuple[str, ...]
    dtype: str
    fill: Any
    attributes: dict[str, Any] = field(default_factory=dict)


def result_arrays(
    metrics: Mapping[str, str], refit_metric: str, candidates: Sequence[Candidate]
) -> tuple[Array, ...]:
    """Return all arrays along partitions; ``status``, which is written last, comes last.

    Parameters
    ----------
    metrics : mapping of str to str
        What each metric is called in titles, by its name.
    refit_metric : str
        The one that chooses the best.
    candidates : sequence of Candidate
        Their parameters have arrays ``best_param_<name>``.
    """
    arrays = []
    for metric, label in metrics.items():
        arrays += [
            Array(
                f"test_{metric}",
                ("candidate", "split"),
                "float64",
                NAN,
                {"long_name": f"{label} on the test samples of each split"},
            ),
            Array(
                f"mean_test_{metric}",
                ("candidate",),
                "float64",
                NAN,
                {"long_name": f"mean of {label} over the splits"},
            ),
            Array(
                f"std_test_{metric}",
                ("candidate",),
                "float64",
                NAN,
                {"long_name": f"standard deviation of {label} over the splits"},
            ),
            Array(
                f"rank_test_{metric}",
                ("candidate",),
                "int32",
                -1,
                {"long_name": f"rank by mean {label}", "comment": "1 is best; -1: none"},
            ),
        ]
    for name, what in (("fit_time", "fit"), ("score_time", "score")):
        long_name = f"time to {what} one candidate on one split"
        arrays.append(
            Array(
                name,
                ("candidate", "split"),
                "float32",
                NAN,
                {"long_name": long_name, "units": "s"},
            )
        )
    arrays += [
        Array(
            "best_index",
            (),
            "int64",
            -1,
            {"long_name": "index of the best candidate", "comment": "-1: none"},
        ),
        Array(
            "best_score",
            (),
            "float64",
            NAN,
            {"long_name": f"best mean {metrics[refit_metric]} over the splits"},
        ),
        Array(
            "best_model",
            (),
            "str",
            "",
            {"long_name": "model of the best candidate"},
        ),
        *(
            Array(
                f"best_param_{name}",
                (),
                "float64" if is_numeric(candidates, name) else "str",
                NAN if is_numeric(candidates, name) else "",
                {"long_name": f"{name} of the best candidate"},
            )
            for name in parameter_names(candidates)
        ),
        Array(
            "n_samples",
            (),
            "int64",
            -1,
            {"long_name": "samples used", "comment": "-1: pending"},
        ),
        Array(
            "n_splits",
            (),
            "int32",
            -1,
            {"long_name": "splits evaluated", "comment": "-1: pending"},
        ),
        Array(
            "message",
            ("candidate",),
            "str",
            "",
            {"long_name": "reason of a failure, or the first warning"},
        ),
        Array(
            "partition_status",
            (),
            "int8",
            0,
            {"long_name": "state of each partition", **_flags()},
        ),
        Array(
            "status",
            ("candidate",),
            "int8",
            0,
            {"long_name": "state of each candidate", **_flags()},
        ),
    ]
    return tuple(arrays)


def _flags() -> dict[str, Any]:
    return {
        "flag_values": list(range(len(STATUS_MEANINGS))),
        "flag_meanings": " ".join(STATUS_MEANINGS),
    }
