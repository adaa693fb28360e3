"""Choice lists that both the spec and the command line show."""

from __future__ import annotations

from typing import Literal, get_args

Outputs = Literal["joint", "separate"]
Dtype = Literal["float64", "float32"]
Strategy = Literal[
    "grid", "random", "halving", "halving_random", "optuna", "incremental", "hyperband"
]
Engine = Literal["shared", "dask-ml"]
Models = Literal["none", "on_demand", "skops", "joblib"]
JobPlace = Literal["worker_jobs", "one_job"]
OutsideJobs = Literal["warn", "refuse"]
Rechunk = Literal["auto", "never", "copy", "p2p"]
Security = Literal["tls", "none"]
PerformanceReport = bool | Literal["auto"]
Portion = Literal["all", "train", "test"]
TableFormat = Literal["table", "csv", "parquet", "json", "latex"]
TableContent = Literal["best", "models", "candidates", "worst", "failures"]
FigureFormat = Literal["pdf", "png", "svg"]

AUTO: Literal["auto"] = "auto"
PORTIONS: tuple[str, ...] = get_args(Portion)
FIGURE_FORMATS: tuple[str, ...] = get_args(FigureFormat)
TABLE_FORMATS: tuple[str, ...] = get_args(TableFormat)
TABLE_CONTENTS: tuple[str, ...] = get_args(TableContent)
KEPT_MODELS: tuple[str, ...] = ("skops", "joblib")
"""Values of ``output.models`` with which fitted models are stored."""

OF_PICKLES = (
    "models are stored as pickles (output.models: joblib): loading one runs whatever code its file "
    "has, so load_model and predict ask for trust of joblib; output.models: skops runs none"
)
"""What is told before models are stored so."""

CLUSTER_KINDS: tuple[str, ...] = ("local", "slurm", "pbs", "external")

PENDING, DONE, FAILED, EMPTY, TIMED_OUT, OUT_OF_MEMORY = range(6)
FAILURES = (FAILED, TIMED_OUT, OUT_OF_MEMORY)
RETRIED: tuple[str, ...] = ("failed", "timed_out", "out_of_memory")
"""Kinds of failure that ``--retry`` takes."""

STATUS_MEANINGS: tuple[str, ...] = (
    "pending",
    "done",
    "failed",
    "empty",
    "timed_out",
    "out_of_memory",
)
"""What the int8 values of ``status`` and ``partition_status`` mean, in order."""
