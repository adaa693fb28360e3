"""Our searches are scikit-learn's: by its own tests of its searches, and of any estimator."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from hpc_sweep import GridSearchCV, RandomizedSearchCV

N_PASSED = 141
"""So many tests of scikit-learn 1.9.1 pass with its own classes, without optional libraries."""


def test_the_tests_of_scikit_learns_searches_pass(tmp_path: Path) -> None:
    options = ["-c", "/dev/null", f"--rootdir={tmp_path}", "-q", "-W", "ignore"]
    plugins = ["-p", "our_searches", "-p", "no:cacheprovider"]
    which = ["--pyargs", "sklearn.model_selection.tests.test_search"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *plugins, *which],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent), "PYTEST_ADDOPTS": ""},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    *said, last = done.stdout.strip().splitlines()
    assert done.returncode == 0, "\n".join([*said[-60:], last])
    passed = re.search(r"(\d+) passed", last)
    assert passed is not None
    assert int(passed[1]) >= N_PASSED


CLASSIFIER = make_pipeline(PCA(), LogisticRegression())
REGRESSOR = make_pipeline(PCA(), Ridge())

SEARCHES = [
    GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2),
    GridSearchCV(CLASSIFIER, {"logisticregression__C": [0.1, 1.0]}, cv=2),
    RandomizedSearchCV(REGRESSOR, {"ridge__alpha": [0.1, 1.0]}, n_iter=2, cv=2, random_state=0),
]


def failures_of_its_own(search: Any) -> dict[str, str]:
    """Return the checks that scikit-learn 1.9 says its own searches fail."""
    return {
        "check_supervised_y_2d": "no DataConversionWarning",
        "check_requires_y_none": "not the message that is wanted",
    }


@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks(SEARCHES, expected_failed_checks=failures_of_its_own)
def test_what_scikit_learn_checks_of_any_estimator(estimator: Any, check: Any) -> None:
    check(estimator)
