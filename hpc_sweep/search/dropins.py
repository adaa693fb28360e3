"""scikit-learn's searches, in less work."""

from __future__ import annotations

import functools
import inspect
from types import FunctionType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn import model_selection
from sklearn.base import _fit_context
from sklearn.utils.validation import check_is_fitted

from hpc_sweep.search.cells import SharingParallel


class _SharedFits:
    """A search of scikit-learn's whose candidates share fits.

    It runs scikit-learn's own ``fit``, in which one name means something else: what it asks
    its ``Parallel`` for. So all that is no fit of a candidate is scikit-learn's, of the
    version that is installed.
    """

    @_fit_context(prefer_skip_nested_validation=False)  # type: ignore[untyped-decorator]
    def fit(self, X: Any, y: Any = None, **params: Any) -> Self:
        """Run fit with all sets of parameters.

        Parameters
        ----------
        X : array-like or sparse matrix, shape (n_samples, n_features) or (n_samples, n_samples)
            Training samples; a precomputed kernel or distance matrix.
        y : array-like, shape (n_samples,) or (n_samples, n_outputs), or None
            Target. Dask collections, here and in what follows, are computed first.
        **params : dict of str to object
            For the estimator's ``fit``, the scorer and the splitter, as scikit-learn routes
            them; then each candidate is fitted alone.

        Returns
        -------
        self : object
            The fitted search.
        """
        X, y, *values = computed(X, y, *params.values())
        params = dict(zip(params, values, strict=True))
        groups: list[NDArray[np.intp]] = []
        theirs = inspect.unwrap(super().fit.__func__)  # type: ignore[misc]
        _seeing(theirs, Parallel=functools.partial(SharingParallel, groups))(self, X, y, **params)
        self._shared = np.concatenate(groups)
        return self

    @property
    def shared(self) -> NDArray[np.intp]:
        """Which candidates shared fits, shape (n_candidates,).

        Those with the same number did, and times in ``cv_results_`` are a candidate's part;
        -1: fitted alone. The name lacks scikit-learn's underscore, since its own tests compare
        all attributes that have it between kinds of searches.
        """
        check_is_fitted(self, "_shared")
        return self._shared


def computed(*values: Any) -> list[Any]:
    """Compute Dask collections, those of one kind at once.

    `dask.compute` gives back the results of mixed kinds in another order (dask 2026.8: of an
    array, a delayed object and an array the last two change places).
    """
    found = list(values)
    kinds: dict[Any, list[int]] = {}
    for position, value in enumerate(values):
        if hasattr(value, "__dask_graph__"):
            kinds.setdefault(value.__dask_optimize__, []).append(position)
    for positions in kinds.values():
        import dask

        made = dask.compute(*(values[position] for position in positions), traverse=False)
        for position, value in zip(positions, made, strict=True):
            found[position] = value
    return found


def _seeing(function: FunctionType, **names: Any) -> FunctionType:
    """Return a function that does the same where some global names mean something else."""
    made = FunctionType(
        function.__code__,
        {**function.__globals__, **names},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    made.__kwdefaults__ = function.__kwdefaults__
    return made


class GridSearchCV(_SharedFits, model_selection.GridSearchCV):  # type: ignore[misc]
    """`sklearn.model_selection.GridSearchCV`, in less work where candidates can share it.

    Parameters, attributes and methods are scikit-learn's.

    Attributes
    ----------
    shared : ndarray of int, shape (n_candidates,)
        Which candidates shared fits.

    See Also
    --------
    sklearn.model_selection.GridSearchCV : What it stands in for.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sklearn.decomposition import PCA
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.svm import SVR
    >>> from hpc_sweep import GridSearchCV
    >>> X, y = load_diabetes(return_X_y=True)
    >>> search = GridSearchCV(make_pipeline(PCA(), SVR()), {"svr__C": [1, 10, 100]}).fit(X, y)
    >>> search.best_params_
    {'svr__C': 100}
    >>> search.shared
    array([0, 0, 0])
    """


class RandomizedSearchCV(_SharedFits, model_selection.RandomizedSearchCV):  # type: ignore[misc]
    """`sklearn.model_selection.RandomizedSearchCV`, in less work where candidates can share it.

    Parameters, attributes and methods are scikit-learn's; candidates are drawn in its order.

    Attributes
    ----------
    shared : ndarray of int, shape (n_candidates,)
        Which candidates shared fits.

    See Also
    --------
    sklearn.model_selection.RandomizedSearchCV : What it stands in for.
    GridSearchCV : Evaluates all of a grid.
    """
