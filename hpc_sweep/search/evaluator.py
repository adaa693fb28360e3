"""Fit and score candidates on the splits of partitions: shared where a rule can, else alone."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Hashable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import numpy as np
from sklearn import config_context, get_config
from sklearn.utils import _safe_indexing

from hpc_sweep.choices import OUT_OF_MEMORY
from hpc_sweep.search.copies import copier, is_known, leaves_input
from hpc_sweep.search.results import Evaluation, Evaluations, brief, numbers
from hpc_sweep.search.rules import RULES, Data, Fitted, Rule, Weights
from hpc_sweep.search.scorers import Trace, is_own
from hpc_sweep.search.scorers import is_known as is_known_scorer
from hpc_sweep.search.slicing import working_together
from hpc_sweep.search.tasks import Model, Setting, Task
from hpc_sweep.search.templates import is_valid, template, template_of
from hpc_sweep.search.warned import recorded_once
from hpc_sweep.search.watch import NOBODY, Watch
from hpc_sweep.search.weighing import score, weighs, weight_parameter


class Evaluator:
    """Evaluates the same candidates on any number of partitions.

    Parameters
    ----------
    models : sequence of Model
        The models that candidates refer to.
    settings : sequence of Setting
        The candidates.
    metrics : sequence of str
        Names of the metrics; one for a scorer that gives a number.
    train_scores : bool
        Whether to score on the training samples too.
    rules : sequence of Rule
        By which work is shared; the first one that matches a candidate is taken.
    """

    def __init__(
        self,
        models: Sequence[Model],
        settings: Sequence[Setting],
        metrics: Sequence[str],
        *,
        train_scores: bool = False,
        rules: Sequence[Rule] = RULES,
    ) -> None:
        self.models = models
        self.settings = settings
        self.metrics = tuple(metrics)
        self._train_scores = train_scores
        self._watch = NOBODY
        self._weighed: dict[int, tuple[str | None, bool]] = {}
        self._templates: list[Any] = [template(models[each.model], each) for each in settings]
        self._valid = [is_valid(each) for each in self._templates]
        # what others make in their fits has parameters that nobody has looked at yet
        self._proven = [
            v and is_known(t) for v, t in zip(self._valid, self._templates, strict=True)
        ]
        self._scored: set[int] = set()
        self._skips = get_config()["skip_parameter_validation"]
        self._copiers = [copier(each) for each in self._templates]
        self._leaves_input = [t is not None and leaves_input(t) for t in self._templates]
        self.groups = self._grouped(rules)

    def _grouped(self, rules: Sequence[Rule]) -> list[tuple[Rule | None, list[int]]]:
        """Return which candidates are evaluated together, and by which rule."""
        groups: dict[Hashable, tuple[Rule | None, list[int]]] = {}
        for row, unfitted in enumerate(self._templates):
            key: Hashable = row
            matching: Rule | None = None
            # training samples that a fit has written into would be scored as they are then
            may_share = self._valid[row] and (self._leaves_input[row] or not self._train_scores)
            for rule in rules if may_share else ():
                common = rule.matches(unfitted)
                if common is not None:
                    setting = self.settings[row]
                    key, matching = (id(rule), setting.model, setting.seeded, common), rule
                    break
            groups.setdefault(key, (matching, []))[1].append(row)
        found: list[tuple[Rule | None, list[int]]] = []
        for rule_or_none, rows in groups.values():
            if rule_or_none is None or len(rows) < rule_or_none.least:
                found += [(None, [row]) for row in rows]
            else:
                found.append((rule_or_none, rows))
        return found

    def borders(self) -> tuple[int, ...]:
        """Return behind which candidates a slice may end: not among those that share their work.

        Groups whose members lie among those of others are cut: a slice is a range of candidates.
        """
        inside: set[int] = set()
        for _, members in working_together(self):
            if members[-1] - members[0] == len(members) - 1:
                inside.update(members[1:])
        return tuple(n for n in range(1, len(self.settings) + 1) if n not in inside)

    def evaluate(self, tasks: Sequence[Task], watch: Watch = NOBODY) -> Evaluations:
        """Fit and score every candidate on every split of every partition.

        Parameters
        ----------
        tasks : sequence of Task
            The partitions.
        watch : Watch
            Told of each fit before it begins.

        Returns
        -------
        Evaluations
            One a partition, rows in the order of the candidates. What a candidate raises
            becomes NaN and a message, as with scikit-learn's ``error_score=np.nan``, and
            touches nothing else. Numbers do not depend on which partitions come together.
        """
        results = self.blank(tasks)
        self.begin(tasks, results, watch)
        for rule, rows in self.groups:
            if rule is None:
                self.all_alone(rows, tasks, results)
            else:
                watch.shares()
                rule.evaluate(self, rows, tasks, results)
        return results

    def begin(
        self, tasks: Sequence[Task], results: Sequence[Evaluation], watch: Watch = NOBODY
    ) -> None:
        """Begin to tell `watch` of fits, whose scores go to these results."""
        self._watch = watch
        watch.begins(tasks, results)

    def blank(self, tasks: Sequence[Task]) -> Evaluations:
        """Return results in which nothing has been evaluated."""
        return Evaluations(
            len(self.settings),
            [task.n_splits for task in tasks],
            self.metrics,
            self._train_scores,
            [task.names for task in tasks],
        )

    def n_splits(self, row: int, task: Task) -> int:
        """Return how many splits a candidate is evaluated on: none where there are none."""
        return len(task.splits.get(self.settings[row].model, ()))

    def unfitted(self, row: int, seed: int) -> Any:
        """Return a new estimator of a candidate."""
        made = self._copiers[row]()
        for name in self.settings[row].seeded:
            if "__" in name:
                made.set_params(**{name: seed})
            else:
                setattr(made, name, seed)
        return made

    def template(self, row: int) -> Any:
        """Return a candidate's estimator, which is not to be fitted; None where it has none."""
        return self._templates[row]

    def all_alone(self, rows: Sequence[int], tasks: Sequence[Task], results: Evaluations) -> None:
        """Evaluate candidates one by one, on all splits of all partitions."""
        for task, result in zip(tasks, results, strict=True):
            for row in rows:
                self.alone(row, task, range(self.n_splits(row, task)), result)

    def alone(self, row: int, task: Task, columns: Sequence[int], result: Evaluation) -> None:
        """Evaluate one candidate on some splits, if it was not ended."""
        if row in result.ended:
            return
        setting = self.settings[row]
        model = self.models[setting.model]
        with self.recorded() as warned:
            for column in columns:
                self._watch.fits(task, row, column)
                before = len(warned)
                # cut anew for each fit, as scikit-learn does: Ridge(copy_X=False) changes its X
                data = self._cut(row, task, column)
                start = fitted = time.perf_counter()
                try:
                    with self._validated(self._proven[row]):
                        estimator = self.made(row, task.seed)
                        data.fit(estimator)
                    fitted = time.perf_counter()
                    self._score(model, estimator, data, row, column, result)
                except (Exception, SystemExit) as error:  # it is the candidate's failure
                    result.fail(row, column, brief(type(error).__name__, error))
                    if isinstance(error, MemoryError):
                        result.states[row] = OUT_OF_MEMORY
                    fitted = time.perf_counter() if fitted == start else fitted
                self._warn(row, warned[before:], result)
                result.fit_time[row, column] = fitted - start
                result.score_time[row, column] = time.perf_counter() - fitted
        self._watch.shares()

    def _cut(self, row: int, task: Task, column: int, warned: list[str] | None = None) -> Data:
        """Return one split of a partition."""
        train, test = task.splits[self.settings[row].model][column]
        X, y = task.X, task.y
        y_train, y_test = (None, None) if y is None else (_rows(y, train), _rows(y, test))
        weights = None
        if task.weights is not None:
            name, _ = self._weighing(row)
            weights = Weights(_rows(task.weights, train), _rows(task.weights, test), name)
        warned = [] if warned is None else warned
        return Data(_rows(X, train), y_train, _rows(X, test), y_test, warned, weights)

    def _weighing(self, row: int) -> tuple[str | None, bool]:
        """Return by which name a candidate's fit takes weights, and whether its scorer does."""
        if row not in self._weighed:
            model, template = self.models[self.settings[row].model], self._templates[row]
            self._weighed[row] = weight_parameter(template), weighs(model.scorer, template)
        return self._weighed[row]

    def _check_weights(self, rows: Sequence[int], task: Task) -> None:
        """Raise where candidates do not all take weights, and by the same name."""
        names = {self._weighing(row)[0] for row in rows if task.weights is not None}
        if None in names or len(names) > 1:
            raise TypeError("not all take sample weights, and by the same name")

    def made(self, row: int, seed: int) -> Any:
        """Return a new estimator, or raise what making it raises."""
        if self._templates[row] is None:
            return template_of(self.models[self.settings[row].model], self.settings[row])
        return self.unfitted(row, seed)

    def recorded(self) -> AbstractContextManager[list[str]]:
        """Return a context that gives what is warned of in it."""
        return recorded_once()

    def _warn(self, row: int, texts: Sequence[str], result: Evaluation) -> None:
        """Note what a candidate's fit and scores warned of."""
        result.warn(row, texts)

    def _validated(self, proven: bool) -> Any:
        """Return a context in which parameters are looked at, but for those found valid before."""
        return config_context(skip_parameter_validation=proven or self._skips)

    def _score(
        self, model: Model, estimator: Any, data: Data, row: int, column: int, result: Evaluation
    ) -> None:
        index = self.settings[row].model
        with self._validated(self._proven[row] and index in self._scored):
            succeeded = self._score_side(model, estimator, data, row, column, result)
            if self._train_scores:
                self._score_side(model, estimator, data, row, column, result, train=True)
        if succeeded and self._proven[row] and is_known_scorer(model.scorer):
            self._scored.add(index)

    def _score_side(
        self,
        model: Model,
        estimator: Any,
        data: Data,
        row: int,
        column: int,
        result: Evaluation,
        *,
        train: bool = False,
    ) -> bool:
        """Note the scores of test or training samples; return whether there are all of them."""
        given = data.weights if self._weighing(row)[1] else None
        if train:
            samples = data.X_train, data.y_train, given and given.train
        else:
            samples = data.X_test, data.y_test, given and given.test
        succeeded = True
        for metric, value in numbers(score(model.scorer, estimator, *samples), self.metrics):
            if isinstance(value, str):
                succeeded = False
                if not train:
                    last = value.strip().splitlines()[-1]
                    result.fail(row, column, brief(f"scoring {metric}", last))
            else:
                (result.train_scores if train else result.scores)[metric][row, column] = value
                if not train and math.isnan(value):
                    result.fail(row, column, f"scoring {metric}: the score is NaN")
        return succeeded

    def share(
        self, rule: Rule, rows: Sequence[int], task: Task, column: int, result: Evaluation
    ) -> None:
        """Evaluate candidates on one split by a rule; alone where it fails."""
        left = set(rows)
        self._watch.shares()
        with self.recorded() as warned, self._validated(all(self._proven[row] for row in rows)):
            data = self._cut(rows[0], task, column, warned)
            trace = Trace(self.models[self.settings[rows[0]].model].scorer, data)
            try:
                self._check_weights(rows, task)
                estimators = [self.unfitted(row, task.seed) for row in rows]
                for found in rule.fitted(estimators, data):
                    row = rows[found.position]
                    texts = list(warned) if found.warned is None else list(found.warned)
                    if self._score_shared(found, row, data, column, texts, result):
                        left.discard(row)
                    self._watch.shares()
                    if trace.is_left():
                        break
            except (Exception, SystemExit):  # noqa: S110, what is left is fitted alone, and says why
                pass
        for row in sorted(left):
            self.alone(row, task, [column], result)

    def _score_shared(
        self,
        found: Fitted,
        row: int,
        data: Data,
        column: int,
        texts: list[str],
        result: Evaluation,
    ) -> bool:
        """Score a fitted candidate; return False when it has to be fitted alone."""
        model = self.models[self.settings[row].model]
        begin = time.perf_counter()
        estimator = found.estimator
        view = self._transformed(model, found, data) if found.steps else data
        if view is None:
            estimator, view = self._assembled(row, found), data
        start = len(data.warned)
        if not self._leaves_input[row]:
            view = copy.deepcopy(view)
        failed, message = bool(result.failed[row]), result.messages[row]
        result.failed[row] = False  # by another split, maybe
        try:
            self._score(model, estimator, view, row, column, result)
            succeeded = not result.failed[row]
        except (Exception, SystemExit):
            succeeded = False
        result.failed[row], result.messages[row] = failed, message
        if not succeeded:
            result.clear(row, column)
            return False
        result.fit_time[row, column] = found.seconds
        result.score_time[row, column] = found.score_seconds + time.perf_counter() - begin
        self._warn(row, [*texts, *data.warned[start:]], result)
        return True

    def _transformed(self, model: Model, found: Fitted, data: Data) -> Data | None:
        """Return the split as a pipeline's last step sees it; None where its steps are to be asked.

        They are by a user's scorer, and by each score that is asked for where they warn or where
        the last step may write into what it is given.
        """
        if found.X_test is None or not is_own(model.scorer):
            return None
        if len(self.metrics) > 1 and not leaves_input(found.estimator):
            return None
        before = len(data.warned)
        X_train = _through(found.steps, data.X_train) if self._train_scores else None
        if len(data.warned) > before:
            return None
        return replace(data, X_train=X_train, X_test=found.X_test, warned=[])

    def _assembled(self, row: int, found: Fitted) -> Any:
        """Return the whole pipeline, fitted, for a scorer that may look at its steps."""
        pipeline = copy.copy(self._templates[row])
        names = [name for name, _ in pipeline.steps]
        pipeline.steps = list(zip(names, [*found.steps, found.estimator], strict=True))
        return pipeline


def _through(steps: Sequence[Any], X: Any) -> Any:
    for step in steps:
        X = X if step is None or isinstance(step, str) else step.transform(X)
    return X


def _rows(values: Any, indices: Any) -> Any:
    """Return rows of what scikit-learn takes as samples: frames, lists, sparse matrices too."""
    return values[indices] if type(values) is np.ndarray else _safe_indexing(values, indices)
