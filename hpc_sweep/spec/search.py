"""The ``search`` section: what all strategies share, and the keys of each."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag, ValidationInfo, field_validator

from hpc_sweep.choices import Engine, Strategy
from hpc_sweep.spec.section import Section
from hpc_sweep.spec.words import Metric, Metrics, Name, Scorers, Seconds, Step

HOW = frozenset({"engine", "timeout"})
"""Keys that do not decide the results, and may change between runs."""


APART = frozenset({"grid", "random"})
"""Strategies in which no candidate's results depend on another's."""

HOW_MANY = frozenset({"n_iter"})
"""Keys of these that decide which candidates there are, and nothing else."""

ONE_GROUP_OUT = "leave_one_group_out"

OF_SAMPLES = frozenset({"groups", "sorted_by"})
"""Keys of ``cv`` that name something of the data, and are no parameters of a splitter."""

TestSize = Annotated[
    Annotated[float, Field(gt=0, lt=1)] | None,
    Field(description="part of each block that scores are of; default: 0.2, or one block's size"),
]
BlockSamples = Annotated[
    Annotated[int, Field(ge=1)] | None,
    Field(description="samples of a block at the least; default: chunks put together to 32 MB"),
]


class SearchSpec(Section):
    """How candidates are compared."""

    space: ClassVar[str] = "param_grid"
    later: ClassVar[frozenset[str]] = frozenset()
    """Keys that came after the first stores: their absence is not in a digest."""

    strategy: Strategy = "grid"
    cv: Annotated[int, Field(ge=1)] | dict[str, Any] = Field(
        5,
        description="number of folds (1, on blocks alone: one train/test split), "
        "{class: import.path, parameter: value, groups: name}, or {leave_one_group_out: time.year}",
    )
    scoring: Name | Metrics | Scorers | None = Field(
        None, description="a scorer's name, a list, or {name: scorer}; default: the score()"
    )
    refit: bool | Metric = Field(
        True, description="with several metrics: the name of the one that chooses the best"
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(
        0, description="every random_state that is left open is derived from it"
    )
    engine: Engine = Field(
        "shared", description="what fits and scores: shared (our own), or dask-ml (grid and random)"
    )
    timeout: Seconds | None = Field(
        None, description="seconds that a fit with its scoring may take; then it is ended"
    )

    @field_validator("cv", mode="before")
    @classmethod
    def _is_a_number(cls, cv: Any) -> Any:
        if isinstance(cv, bool):
            raise ValueError("a number of folds is no truth value")
        return cv

    def defining(self) -> dict[str, Any]:
        """Return what decides the results; later keys only where they are given."""
        whole = self.model_dump(mode="json", exclude=set(HOW))
        return {k: v for k, v in whole.items() if v is not None or k not in self.later}

    @property
    def splitter(self) -> int | dict[str, Any]:
        """What makes the splits: a number of folds, or ``class`` and its parameters alone."""
        if isinstance(self.cv, int):
            return self.cv
        if ONE_GROUP_OUT in self.cv:
            return {"class": "sklearn.model_selection.LeaveOneGroupOut"}
        return {key: value for key, value in self.cv.items() if key not in OF_SAMPLES}

    @property
    def groups(self) -> str | None:
        """By what samples are grouped for the splits: a name in the data, or None."""
        return self._named("groups") or self._named(ONE_GROUP_OUT)

    @property
    def names_splits(self) -> bool:
        """Whether a split is that of one group, which is left out, and is called by its name."""
        return self._class == "LeaveOneGroupOut"

    @property
    def sorted_by(self) -> str | None:
        """By what samples are sorted before they are split; ``""``: by their own coordinate."""
        if self._named("sorted_by"):
            return self._named("sorted_by")
        return "" if self._class == "TimeSeriesSplit" else None

    @property
    def _class(self) -> str:
        """The name of the splitter's class, or ``""``."""
        path = "" if isinstance(self.splitter, int) else self.splitter.get("class")
        return path.rpartition(".")[2] if isinstance(path, str) else ""

    def _named(self, key: str) -> str | None:
        value = None if isinstance(self.cv, int) else self.cv.get(key)
        return value if isinstance(value, str) else None


class ApartSpec(SearchSpec):
    """What grid and random share: estimators of dask-ml are fitted on blocks."""

    later: ClassVar[frozenset[str]] = frozenset({"block_samples"})

    block_samples: BlockSamples = None

    @field_validator("block_samples")
    @classmethod
    def _has_blocks(cls, block_samples: int | None, info: ValidationInfo) -> int | None:
        if block_samples is not None and info.data.get("cv", 1) != 1:
            raise ValueError("blocks are for estimators of dask-ml, and want cv: 1 beside it")
        return block_samples


class GridSpec(ApartSpec):
    """All settings of all grids."""

    strategy: Literal["grid"] = "grid"


class RandomSpec(ApartSpec):
    """Settings drawn once, the same for all partitions."""

    space: ClassVar[str] = "param_distributions"

    strategy: Literal["random"]
    n_iter: Annotated[int, Field(ge=1)] = Field(
        10, description="settings to draw of each model; more of them keep the first ones"
    )


class HalvingSpec(SearchSpec):
    """Few resources for all settings, more for the better ones, within each partition."""

    strategy: Literal["halving"]
    factor: Annotated[float, Field(gt=1, allow_inf_nan=False)] = Field(
        3.0, description="one candidate in so many goes on, with so many times the resources"
    )
    resource: Name = Field(
        "n_samples", description="what grows: n_samples, or a parameter such as n_estimators"
    )
    min_resources: Literal["exhaust", "smallest"] | Annotated[int, Field(ge=1)] = Field(
        "exhaust", description="of the first iteration; exhaust: so that the last one has most"
    )
    max_resources: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        "auto", description="of any iteration; auto: all samples"
    )
    aggressive_elimination: bool = Field(
        False, description="repeat the first iteration's resources until few enough are left"
    )


class HalvingRandomSpec(HalvingSpec):
    """The same of settings drawn once, as `HalvingRandomSearchCV` does."""

    space: ClassVar[str] = "param_distributions"

    strategy: Literal["halving_random"]  # type: ignore[assignment]
    n_candidates: Annotated[int, Field(ge=1)] = Field(
        27, description="settings to draw of each model"
    )
    min_resources: Literal["exhaust", "smallest"] | Annotated[int, Field(ge=1)] = Field(
        "smallest", description="of the first iteration; exhaust: so that the last one has most"
    )


class OptunaSpec(SearchSpec):
    """A study of Optuna in each partition."""

    space: ClassVar[str] = "param_distributions"

    strategy: Literal["optuna"]
    n_trials: Annotated[int, Field(ge=1)] = Field(20, description="of each partition")
    trials_at_once: Annotated[int, Field(ge=1)] = Field(
        5, description="trials asked for before results of the last ones are told"
    )
    sampler: Step = Field(
        "tpe",
        description="tpe, random, cmaes, gp, qmc, nsgaii or an import path; or {name: parameters}",
    )


class IncrementalSpec(SearchSpec):
    """Settings trained block by block on data that no worker can hold, as dask-ml does."""

    space: ClassVar[str] = "param_distributions"

    strategy: Literal["incremental"]
    cv: Literal[1] = Field(1, description="one train/test split of each block: see test_size")
    n_initial_parameters: Annotated[int, Field(ge=1)] = Field(
        10, description="settings to draw of each model"
    )
    decay_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        None, description="how fast candidates leave, 1: after k rounds all but 1/(k+1); null: none"
    )
    max_iter: Annotated[int, Field(ge=1)] = Field(
        100, description="blocks that a candidate is trained on at the most"
    )
    patience: Literal[False] | Annotated[int, Field(ge=2)] = Field(
        False, description="training ends that gained less than tol in so many blocks"
    )
    tol: float | None = Field(0.001, description="see patience")
    fits_per_score: Annotated[int, Field(ge=1)] = Field(
        1, description="blocks between two scores, where there is no decay_rate"
    )
    test_size: TestSize = None
    block_samples: BlockSamples = None


class HyperbandSpec(SearchSpec):
    """Tournaments of candidates that are trained block by block, as dask-ml holds them."""

    space: ClassVar[str] = "param_distributions"

    strategy: Literal["hyperband"]
    cv: Literal[1] = Field(1, description="one train/test split of each block: see test_size")
    max_iter: Annotated[int, Field(ge=2)] = Field(
        81, description="blocks that the best candidates are trained on; also how many are drawn"
    )
    aggressiveness: Annotated[float, Field(ge=2, allow_inf_nan=False)] = Field(
        3.0, description="one candidate in so many goes on, to so many times the blocks"
    )
    patience: bool | Annotated[int, Field(ge=2)] = Field(
        False, description="training ends that gained less than tol in so many blocks; true: auto"
    )
    tol: float | None = Field(0.001, description="see patience")
    test_size: TestSize = None
    block_samples: BlockSamples = None


def strategy(value: Any) -> str:
    """Return which strategy a ``search`` section is of; faults name the key by this function."""
    found = value.get("strategy") if isinstance(value, dict) else getattr(value, "strategy", None)
    return found if isinstance(found, str) else "grid"


Search = Annotated[
    Annotated[GridSpec, Tag("grid")]
    | Annotated[RandomSpec, Tag("random")]
    | Annotated[HalvingSpec, Tag("halving")]
    | Annotated[HalvingRandomSpec, Tag("halving_random")]
    | Annotated[OptunaSpec, Tag("optuna")]
    | Annotated[IncrementalSpec, Tag("incremental")]
    | Annotated[HyperbandSpec, Tag("hyperband")],
    Discriminator(strategy),
]
