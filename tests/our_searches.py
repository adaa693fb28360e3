"""A plugin of pytest: tests that import scikit-learn's searches get ours."""

import sklearn.model_selection

import hpc_sweep

for name in ("GridSearchCV", "RandomizedSearchCV"):
    setattr(sklearn.model_selection, name, getattr(hpc_sweep, name))
