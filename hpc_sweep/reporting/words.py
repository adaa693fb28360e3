"""How numbers, metrics and partitions are called in a report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpc_sweep.partitions import Label

LONGEST_LABEL = 40
"""Labels are cut here: who makes data may have put anything into them."""

TITLES = {
    "r2": "R²",
    "neg_mean_absolute_error": "mean absolute error",
    "neg_median_absolute_error": "median absolute error",
    "neg_root_mean_squared_error": "root mean squared error",
    "neg_mean_squared_error": "mean squared error",
    "neg_mean_squared_log_error": "mean squared logarithmic error",
    "neg_root_mean_squared_log_error": "root mean squared logarithmic error",
    "neg_mean_absolute_percentage_error": "mean absolute percentage error",
    "neg_log_loss": "log loss",
    "neg_brier_score": "Brier score",
    "neg_max_error": "largest error",
    "max_error": "largest error",
    "explained_variance": "explained variance",
    "roc_auc": "area under the ROC curve",
    "balanced_accuracy": "balanced accuracy",
    "average_precision": "average precision",
    "f1": "F1",
}
"""Scorers of scikit-learn, as people write them; ``neg_`` is written as a plain error."""

IN_UNITS = frozenset(
    {
        "neg_mean_absolute_error",
        "neg_median_absolute_error",
        "neg_root_mean_squared_error",
        "neg_max_error",
        "max_error",
    }
)
"""Scorers whose values have the target's units."""


@dataclass(frozen=True)
class Metric:
    """A metric as it is shown.

    Attributes
    ----------
    name : str
        In the store: ``test_<name>``.
    title : str
        For people.
    sign : int
        −1 where the store has the negative of what is shown, so that less is better.
    units : str
        Of what is shown; ``""`` where there are none or they are not known.
    """

    name: str
    title: str
    sign: int = 1
    units: str = ""

    @classmethod
    def of(cls, name: str, scorer: str, target_units: str = "") -> Metric:
        """Return how the scores of a scorer are shown."""
        sign = -1 if scorer.startswith("neg_") or scorer == "max_error" else 1
        title = TITLES.get(scorer, clean(scorer.removeprefix("neg_").replace("_", " ")))
        return cls(name, title, sign, clean(target_units) if scorer in IN_UNITS else "")

    @property
    def less_is_better(self) -> bool:
        """Whether what is shown is an error."""
        return self.sign < 0

    @property
    def axis(self) -> str:
        """The title with units, for axes."""
        return with_units(self.title, self.units)

    def shown(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return scores of the store as they are shown."""
        return self.sign * scores

    def text(self, score: float) -> str:
        """Return a score of the store as text, with its units."""
        return f"{number(self.sign * score)}{f' {self.units}' if self.units else ''}"


def with_units(title: str, units: str) -> str:
    """Return ``title (units)``."""
    return f"{title} ({units})" if units else title


def number(value: float, digits: int = 3) -> str:
    """Return a number as people read it: so many digits that count, no needless exponent."""
    if not math.isfinite(value):
        return "none" if math.isnan(value) else ("∞" if value > 0 else "−∞")
    if value == 0:
        return "0"
    size = math.floor(math.log10(abs(value)))
    if -4 <= size < 6:
        text = f"{value:,.{max(0, digits - 1 - size)}f}"
    else:
        mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
        text = f"{mantissa}×10{str(int(exponent)).translate(_RAISED)}"
    return text.replace("-", "−")


_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def value(of: float) -> str:
    """Return a parameter's value as it was written in a grid."""
    return f"{of:.6g}".replace("-", "−")


def share(part: int, whole: int, what: str = "") -> str:
    """Return ``612 of 784 (78 %)``, or ``612 of 784 pixels (78 %)``, which no line ends in."""
    return f"{part:,} of {whole:,}{f' {what}' if what else ''} ({percent(part, whole)})"


def percent(part: int, whole: int) -> str:
    """Return ``78 %``, with a digit more near the ends, which no line ends in."""
    parts = 100 * part / whole if whole else 0.0
    text = f"{parts:.0f}" if parts in (0, 100) or 1 <= parts <= 99 else f"{parts:.1f}"
    return f"{text}\u00a0%"


def duration(seconds: float) -> str:
    """Return seconds as people read them: ``42 s``, ``3 min 20 s``, ``5 h 02 min``."""
    if seconds < 10:
        return f"{seconds:.2g} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 120:
        return f"{minutes} min {rest:02} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes:02} min"


def clean(text: object, longest: int = LONGEST_LABEL) -> str:
    """Return a text in one line without characters that do not print, cut when it is long."""
    one_line = " ".join(str(text).split())
    printed = "".join(sign if sign.isprintable() else "�" for sign in one_line)
    return printed if len(printed) <= longest else printed[: longest - 1] + "…"


def label_text(label: Label) -> str:
    """Return a label of a partition as text."""
    return f"{label:.6g}".replace("-", "−") if isinstance(label, float) else clean(label)


def place_text(labels: dict[str, Label]) -> str:
    """Return ``latitude 52.5, longitude −1.25``."""
    return ", ".join(f"{clean(dim)} {label_text(label)}" for dim, label in labels.items())


def listing(texts: Sequence[str]) -> str:
    """Return ``a, b and c``."""
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"


@dataclass(frozen=True)
class Noun:
    """What partitions are called."""

    one: str
    many: str

    def counted(self, count: int) -> str:
        """Return ``1 pixel`` or ``2,000 pixels``."""
        return f"{count:,} {self.one if count == 1 else self.many}"


def noun_of(name: str) -> Noun:
    """Return what partitions along one dimension are called."""
    if not name.isascii() or not name.isalpha() or name.endswith("s"):
        return Noun("partition", "partitions")
    return Noun(name, f"{name[:-1]}ies" if name.endswith("y") else f"{name}s")
