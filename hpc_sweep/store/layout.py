"""Which arrays a store has: names, dimensions, types, fills and attributes.

Names follow scikit-learn's ``cv_results_``.
"""

from __future__ import annotations

from typing import Any

from hpc_sweep.choices import STATUS_MEANINGS
from hpc_sweep.linear import linear_models
from hpc_sweep.spec import SweepSpec
from hpc_sweep.strategies import Array, Strategy

NAN = float("nan")


def result_arrays(strategy: Strategy) -> tuple[Array, ...]:
    """Return all arrays along partitions; ``status``, which is written last, comes last.

    Parameters
    ----------
    strategy : Strategy
        Its dimensions stand where a grid has ``candidate``.
    """
    metrics, refit_metric = strategy.spec.metric_labels, strategy.spec.refit_metric
    row, along = (strategy.dim,), tuple(strategy.lengths)
    arrays = []
    for metric, label in metrics.items():
        arrays += [
            Array(
                f"test_{metric}",
                (*along, "split"),
                "float64",
                NAN,
                {"long_name": f"{label} on the test samples of each split"},
            ),
            Array(
                f"mean_test_{metric}",
                along,
                "float64",
                NAN,
                {"long_name": f"mean of {label} over the splits"},
            ),
            Array(
                f"std_test_{metric}",
                along,
                "float64",
                NAN,
                {"long_name": f"standard deviation of {label} over the splits"},
            ),
            Array(
                f"rank_test_{metric}",
                along,
                "int32",
                -1,
                {"long_name": f"rank by mean {label}", "comment": "1 is best; -1: none"},
            ),
        ]
    for name, what in (("fit_time", "fit"), ("score_time", "score")):
        attributes = {
            "long_name": f"time to {what} one {strategy.dim} on one split",
            "units": "s",
            "comment": f"what several share is divided by the number of {strategy.dim}s that do",
        }
        arrays.append(Array(name, (*along, "split"), "float32", NAN, attributes))
    arrays += [
        *refit_arrays(strategy),
        *_held_out_count(strategy),
        Array(
            "best_index",
            (),
            "int64",
            -1,
            {"long_name": f"index of the best {strategy.dim}", "comment": "-1: none"},
            is_found=strategy.chooses,
        ),
        Array(
            "best_score",
            (),
            "float64",
            NAN,
            {"long_name": f"best mean {metrics[refit_metric]} over the splits"},
            is_found=strategy.chooses,
        ),
        Array(
            "best_model",
            (),
            "str",
            "",
            {"long_name": f"model of the best {strategy.dim}"},
        ),
        *(
            Array(
                f"best_param_{name}",
                (),
                dtype,
                fill,
                {"long_name": f"{name} of the best {strategy.dim}"},
            )
            for name, (dtype, fill) in strategy.parameters.items()
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
        *_test_samples(strategy),
        *strategy.arrays,
        Array(
            "message",
            row,
            "str",
            "",
            {"long_name": "reason of a failure, or the first warning"},
        ),
        Array(
            "revision",
            (),
            "int32",
            -1,
            {
                "long_name": "revision of the spec's candidates that ranks and the best are of",
                "comment": "-1: pending",
            },
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
            row,
            "int8",
            0,
            {"long_name": f"state of each {strategy.dim}", **_flags()},
        ),
    ]
    return tuple(arrays)


def refit_arrays(strategy: Strategy) -> list[Array]:
    """Return what is known of the best candidates, fitted again.

    They come before ``best_index``: where a fold was killed between them, they are not taken for
    those of another candidate.
    """
    spec, best = strategy.spec, f"the best {strategy.dim}, refitted"
    held = spec.data.holdout is not None
    scores = [
        Array(
            f"holdout_{metric}",
            (),
            "float64",
            NAN,
            {"long_name": f"{label} of {best}, on the samples held out"},
        )
        for metric, label in (spec.metric_labels if held else {}).items()
    ]
    message = Array(
        "refit_message",
        (),
        "str",
        "",
        {"long_name": f"what failed of {best}: fit, score on samples held out, or storing"},
    )
    kept = [message] if held or spec.output.models != "none" else []
    return [*scores, *_coefficients(strategy), *kept]


def _held_out_count(strategy: Strategy) -> list[Array]:
    if strategy.spec.data.holdout is None:
        return []
    attributes = {"long_name": "samples held out", "comment": "-1: pending"}
    return [Array("n_holdout", (), "int64", -1, attributes)]


def _coefficients(strategy: Strategy) -> list[Array]:
    """Return what linear models come to, where any model is one."""
    output = tuple(dim for dim in refit_lengths(strategy.spec) if dim == "output")
    if not refit_lengths(strategy.spec):
        return []
    what = f"of the best {strategy.dim}, refitted, where it is affine in the features"
    of = "prediction (classifiers of two classes: decision function of the second one)"
    return [
        Array(
            "coef",
            (*output, "feature"),
            "float64",
            NAN,
            {
                "long_name": f"coefficients {what}",
                "comment": f"change of the {of} with one unit of the feature",
            },
        ),
        Array(
            "intercept",
            output,
            "float64",
            NAN,
            {"long_name": f"intercept {what}", "comment": f"the {of} where all features are 0"},
        ),
    ]


def refit_lengths(spec: SweepSpec) -> dict[str, int]:
    """Return the dimensions of coefficients with their lengths; none where there are none."""
    if not linear_models(spec):
        return {}
    joint = spec.data.outputs == "joint" and len(spec.targets) > 1
    return {**({"output": len(spec.targets)} if joint else {}), "feature": len(spec.data.features)}


def _test_samples(strategy: Strategy) -> list[Array]:
    """Return which splits partitions have, where some may lack one."""
    if not strategy.spec.search.names_splits:
        return []
    attributes = {
        "long_name": "test samples of each split",
        "comment": "0: the partition lacks this split; -1: pending",
    }
    return [Array("n_test_samples", ("split",), "int64", -1, attributes)]


def _flags() -> dict[str, Any]:
    return {
        "flag_values": list(range(len(STATUS_MEANINGS))),
        "flag_meanings": " ".join(STATUS_MEANINGS),
    }
