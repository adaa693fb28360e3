"""Systems of normal equations solved, and whether their condition lets them be to 1e-9."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpc_sweep.search.rules.gathering import Floats, Indices
from hpc_sweep.search.rules.normal import Moments

LARGEST_CONDITION = 1e5
"""Of a scaled system: above, two ways to solve it may differ by more than 1e-9."""

LARGEST_RATIO = 1e14
"""Of two variances of features: above, scikit-learn's Cholesky warns."""

LARGEST_RATIO_SVD = 1e10
"""Above, scikit-learn's singular values are wrong by 1e-10 and more."""

TURNED = 0.01
"""Of squared means to variances, so much of the ratio counts against the gap between components:
scikit-learn subtracts means from products, not from features."""

ELEMENTWISE = 16
"""Up to so many features systems are solved element by element over all splits."""


def ridge(found: Moments, alphas: Floats, largest_ratio: float) -> tuple[Floats, NDArray[np.bool_]]:
    """Solve ``(XX + alpha I) w = Xy`` for all alphas.

    Systems are scaled to a diagonal of ones and solved by Cholesky's or Gauss's elimination.

    Parameters
    ----------
    found : Moments
        Of the splits.
    alphas : ndarray of float64, shape (n_splits or 1, n_alphas)
        Penalties.
    largest_ratio : float
        Of two elements of a diagonal; beyond it scikit-learn, which does not scale, warns or
        is itself wrong by more than 1e-9.

    Returns
    -------
    w : ndarray, shape (n_splits, n_alphas, n_features, n_targets)
        Coefficients of scaled features.
    sound : ndarray of bool, shape (n_splits, n_alphas)
        Whether the condition is good enough for them to be right to 1e-9.
    """
    n_features = found.XX.shape[1]
    squares = np.einsum("sii->si", found.XX)
    diagonals = squares[:, np.newaxis] + alphas[..., np.newaxis]
    d = 1 / np.sqrt(diagonals)
    possible = diagonals.max(axis=2) < largest_ratio * diagonals.min(axis=2)
    possible &= found.sound[:, np.newaxis] & np.isfinite(d).all(axis=2)
    if n_features <= ELEMENTWISE:
        w, determinant = _elementwise(found, d)
        # the smallest eigenvalue of a matrix with ones on its diagonal is at least det / e
        least = np.e * n_features * found.strain[:, np.newaxis] / LARGEST_CONDITION
        sound = possible & (determinant > least)
        return w, sound | _well_conditioned(found, d, possible & ~sound)
    weakest = np.zeros_like(possible)
    least = np.argmin(alphas[0])
    weakest[:, least] = possible[:, least]
    # a larger penalty makes no condition worse
    enough = np.asarray(_well_conditioned(found, d, weakest).any(axis=1))
    sound = possible & enough[:, np.newaxis]
    sound |= _well_conditioned(found, d, possible & ~sound)
    systems = _scaled_systems(found, d)
    systems[~sound] = np.eye(n_features)
    w = np.linalg.solve(systems, found.Xy[:, np.newaxis] * d[..., np.newaxis])
    return w * d[..., np.newaxis], sound


def _well_conditioned(found: Moments, d: Floats, asked: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which of the systems that are asked for are, by their eigenvalues."""
    answer = np.zeros_like(asked)
    if asked.any():
        split, alpha = np.nonzero(asked)
        values = np.linalg.eigvalsh(_scaled_systems(found, d, split, alpha))
        largest = LARGEST_CONDITION / found.strain[split]
        answer[split, alpha] = values[:, -1] < largest * values[:, 0]
    return answer


def _scaled_systems(
    found: Moments, d: Floats, split: Any = slice(None), alpha: Any = slice(None)
) -> Floats:
    """Return systems with ones on their diagonals: all, or some pairs of split and alpha."""
    one_each = not isinstance(split, slice)
    factors = d[split, alpha]
    XX = found.XX[split] if one_each else found.XX[:, np.newaxis]
    systems: Floats = XX * factors[..., :, np.newaxis] * factors[..., np.newaxis, :]
    diagonal = np.arange(systems.shape[-1])
    systems[..., diagonal, diagonal] = 1.0
    return systems


def _elementwise(found: Moments, d: Floats) -> tuple[Floats, Floats]:
    """Return solutions and determinants by Cholesky, element by element over all systems."""
    n_splits, n_alphas, size = d.shape
    factors = np.ascontiguousarray(np.moveaxis(d, 2, 0))
    determinant = np.ones((n_splits, n_alphas))
    lower: list[list[Floats]] = [[] for _ in range(size)]
    inverse: list[Floats] = []
    for j in range(size):
        pivot = np.ones((n_splits, n_alphas))
        for k in range(j):
            pivot -= lower[j][k] * lower[j][k]
        determinant *= np.maximum(pivot, 0.0)
        inverse.append(1 / np.sqrt(pivot))
        for i in range(j + 1, size):
            entry = found.XX[:, i, j, np.newaxis] * factors[i] * factors[j]
            for k in range(j):
                entry -= lower[i][k] * lower[j][k]
            lower[i].append(entry * inverse[j])
    n_targets = found.Xy.shape[2]
    w = np.empty((n_splits, n_alphas, size, n_targets))
    for target in range(n_targets):
        x: list[Floats] = []
        for i in range(size):
            value = found.Xy[:, i, target, np.newaxis] * factors[i]
            for k in range(i):
                value -= lower[i][k] * x[k]
            x.append(value * inverse[i])
        for i in reversed(range(size)):
            for k in range(i + 1, size):
                x[i] -= lower[k][i] * x[k]
            x[i] *= inverse[i]
            np.multiply(x[i], factors[i], out=w[:, :, i, target])
    return w, determinant


def principal_ridge(
    found: Moments, alphas: Floats, kept: Indices, *, shifted: bool
) -> tuple[Floats, NDArray[np.bool_]]:
    """Solve ridge regressions on the first principal components of features.

    Parameters
    ----------
    found : Moments
        About the means.
    alphas : ndarray of float64, shape (n_splits or 1, n_candidates)
        Penalties.
    kept : ndarray of intp, same shape
        How many components are kept.
    shifted : bool
        Whether features have had their means until then.

    Returns
    -------
    w : ndarray, shape (n_splits, n_candidates, n_features, n_targets)
        Coefficients of scaled features.
    sound : ndarray of bool, shape (n_splits, n_candidates)
        Whether components and coefficients are right to 1e-9: neighbouring variances are
        apart where components are cut off.
    """
    n_features = found.XX.shape[1]
    usable = found.sound[:, np.newaxis, np.newaxis]
    values, vectors = np.linalg.eigh(np.where(usable, found.XX, 0.0))
    values, vectors = values[:, ::-1], vectors[:, :, ::-1]
    projected = np.matmul(vectors.transpose(0, 2, 1), found.Xy)
    penalised = values[:, np.newaxis] + alphas[..., np.newaxis]
    inside = np.arange(n_features) < kept[..., np.newaxis]
    weights = np.where(inside, 1 / penalised, 0.0)
    coefficients = projected[:, :, np.newaxis] * weights.transpose(0, 2, 1)[..., np.newaxis]
    shape = coefficients.shape
    w = np.matmul(vectors, coefficients.reshape(*shape[:2], -1)).reshape(shape)
    largest = values[:, :1]
    behind = np.concatenate([values, np.full_like(largest, -np.inf)], axis=1)
    last = np.broadcast_to(np.minimum(kept, n_features) - 1, penalised.shape[:2])
    gap = np.take_along_axis(behind, last, 1) - np.take_along_axis(behind, last + 1, 1)
    strain = found.strain[:, np.newaxis]
    turned = TURNED * found.squared_means[:, np.newaxis] if shifted else np.zeros_like(largest)
    sound = np.array(gap * LARGEST_CONDITION > np.maximum(largest * strain, turned))
    sound &= found.sound[:, np.newaxis]
    sound &= kept <= n_features
    smallest = np.take_along_axis(penalised, last[..., np.newaxis], 2)[..., 0]
    sound &= smallest * LARGEST_CONDITION > largest * strain
    return w.transpose(0, 2, 1, 3), sound
