"""Ridge and least squares, alone or after a scaler and principal components, solved in batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from hpc_sweep.search.rules.gathering import Floats
from hpc_sweep.search.rules.normal import Moments, Training, moments
from hpc_sweep.search.rules.systems import (
    LARGEST_RATIO,
    LARGEST_RATIO_SVD,
    principal_ridge,
    ridge,
)

MAX_FULL = 500
"""Up to so many samples or features ``PCA(svd_solver="auto")`` is exact in any case."""


@dataclass(frozen=True)
class Form:
    """What candidates have in common.

    Attributes
    ----------
    kind : type
        Class of the regressor.
    fit_intercept : bool
        Its parameter.
    svd : bool
        Whether scikit-learn solves it by singular values.
    cutoff : float
        Of singular values, those below this times the largest are dropped: ``tol`` of
        `LinearRegression`.
    scaler : bool or None
        ``with_std`` of the `StandardScaler` before it, if there is one.
    pca : str or None
        ``svd_solver`` of the `PCA` before it, if there is one.
    """

    kind: type
    fit_intercept: bool
    svd: bool
    cutoff: float = 0.0
    scaler: bool | None = None
    pca: str | None = None

    @property
    def centred(self) -> bool:
        """Whether features lose their means."""
        return self.fit_intercept or self.scaler is not None or self.pca is not None


def form_of(estimator: Any) -> tuple[Form, float, int | None] | None:
    """Return form, penalty and number of components of an estimator; None for any other."""
    steps = [estimator]
    if type(estimator) is Pipeline:
        if estimator.memory is not None or estimator.verbose or estimator.transform_input:
            return None
        steps = [each for _, each in estimator.steps if each not in (None, "passthrough")]
    if not steps or type(steps[-1]) not in (Ridge, LinearRegression):
        return None
    *before, last = steps
    alpha = getattr(last, "alpha", 0.0)
    solver = getattr(last, "solver", "svd")
    if last.positive or solver not in ("auto", "cholesky", "svd") or np.ndim(alpha):
        return None
    scaler = pca = n_components = None
    if before and type(before[0]) is StandardScaler and before[0].with_mean:
        scaler = bool(before.pop(0).with_std)
    if before and type(before[0]) is PCA:
        step = before.pop(0)
        n_components, pca = step.n_components, step.svd_solver
        exact = pca in ("auto", "full", "covariance_eigh") and not step.whiten
        if not exact or not (n_components is None or _is_count(n_components)):
            return None
    if before:
        return None
    cutoff = float(last.tol) if type(last) is LinearRegression else 0.0
    form = Form(type(last), bool(last.fit_intercept), solver == "svd", cutoff, scaler, pca)
    return form, float(alpha), n_components


def _is_count(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and bool(value >= 1)


def is_plain(X: Any, y: Any) -> bool:
    """Return whether arrays are such that scikit-learn computes in float64."""
    if type(X) is not np.ndarray or type(y) is not np.ndarray or X.ndim != 2 or y.ndim > 2:
        return False
    fits = X.dtype == np.float64 or X.dtype.kind in "iub"
    return bool(fits and (y.dtype == np.float64 or y.dtype.kind in "iub") and len(X) and X.size)


@dataclass(frozen=True)
class System:
    """Candidates of one form.

    Attributes
    ----------
    form : Form
        What they have in common.
    alphas : ndarray of float64, shape (n_splits or 1, n_candidates)
        Penalties.
    kept : ndarray of intp, same shape
        Numbers of components; 0: all.
    """

    form: Form
    alphas: Floats
    kept: NDArray[np.intp]

    def solve(
        self, problems: Training, n_features: int, n_targets: int
    ) -> tuple[Floats, NDArray[np.bool_]]:
        """Return what makes residuals of samples, and which candidates are sound.

        Returns
        -------
        W : ndarray, shape (n_splits, 1 + n_features + n_targets, n_candidates * n_targets)
            By what `Side.Z` is multiplied.
        sound : ndarray of bool, shape (n_splits, n_candidates)
            Whether to 1e-9.
        """
        form = self.form
        found = moments(
            problems,
            n_features,
            centred=form.centred,
            scaled=bool(form.scaler),
            intercept=form.fit_intercept,
        )
        n_kept = np.where(self.kept, self.kept, n_features)
        if form.pca is None:
            ratio = LARGEST_RATIO_SVD if form.svd else LARGEST_RATIO
            w, sound = ridge(found, self.alphas, ratio)
        else:
            shifted = form.scaler is None
            w, sound = principal_ridge(found, self.alphas, n_kept, shifted=shifted)
            sound &= self._exact(problems.n_train, n_features, n_kept)
        if form.cutoff:
            sound &= _none_dropped(found, form.cutoff, n_kept)
        w = w / found.scale[:, np.newaxis, :, np.newaxis]
        n_splits, n_candidates = w.shape[:2]
        mean_X, mean_y = found.mean[:, :n_features], found.mean[:, n_features:]
        constant = -np.matmul(mean_X[:, np.newaxis, np.newaxis], w)[:, :, 0]
        if form.fit_intercept:
            constant += mean_y[:, np.newaxis]
        else:
            constant -= problems.shift[:, np.newaxis, n_features:]
        W = np.empty((n_splits, 1 + n_features + n_targets, n_candidates, n_targets))
        W[:, 0] = constant
        W[:, 1 : 1 + n_features] = w.transpose(0, 2, 1, 3)
        W[:, 1 + n_features :] = -np.eye(n_targets)[:, np.newaxis]
        return W.reshape(*W.shape[:2], -1), sound

    def _exact(self, count: Floats, n_features: int, n_kept: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Return for which splits and candidates scikit-learn's PCA is exact too."""
        smallest = np.minimum(count, n_features)[:, np.newaxis]
        exact = n_kept <= smallest
        if self.form.pca == "auto":
            tall = (n_features <= 2 * MAX_FULL) & (count >= 10 * n_features)
            small = np.maximum(count, n_features) <= MAX_FULL
            exact &= (tall | small)[:, np.newaxis] | (n_kept >= 0.8 * smallest)
        return np.asarray(exact)


def _none_dropped(found: Moments, cutoff: float, n_kept: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Return for which splits and candidates all singular values are above the cutoff."""
    values = np.linalg.eigvalsh(np.where(found.sound[:, np.newaxis, np.newaxis], found.XX, 0.0))
    last = values.shape[1] - np.minimum(n_kept, values.shape[1])
    smallest = np.take_along_axis(values, np.broadcast_to(last, (len(values), last.shape[1])), 1)
    # squares of singular values; twice, since their last digits are not known
    return np.asarray(smallest > 2 * cutoff**2 * values[:, -1:])
