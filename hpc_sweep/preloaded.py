"""What a worker has imported before it is forked. The fork server imports this, nobody else.

Nothing here may start a thread: it would be missing in the forks, and its locks held for ever.
NumPy's own generator, which forks have in common, is seeded anew by Dask's nanny.
"""

from __future__ import annotations

import contextlib
import gc

import distributed.cli.dask_worker  # noqa: F401
import sklearn.cluster
import sklearn.compose
import sklearn.decomposition
import sklearn.ensemble
import sklearn.feature_selection
import sklearn.impute
import sklearn.kernel_approximation
import sklearn.linear_model
import sklearn.model_selection
import sklearn.naive_bayes
import sklearn.neighbors
import sklearn.neural_network
import sklearn.pipeline
import sklearn.preprocessing
import sklearn.svm
import sklearn.tree

import hpc_sweep.work  # noqa: F401
from hpc_sweep.clusters.timing import keep_time
from hpc_sweep.printing import keep_printing

with contextlib.suppress(ImportError):
    import sparse  # noqa: F401, which dask-ml brings, and xarray imports at its first array

# at the first fit of a process scikit-learn lets narwhals look for plugins in each folder of the
# path and in all that is installed; where a disk does not answer just then, the fit takes too long
sklearn.preprocessing.StandardScaler().fit([[0.0], [1.0]])

keep_time()
keep_printing()

# the collector would write into the objects that are here, and so copy their pages
gc.collect()
gc.freeze()
