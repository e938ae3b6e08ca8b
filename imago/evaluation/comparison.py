"""How two models do on the same test pictures, picture by picture."""

from collections.abc import Collection
from statistics import fmean
from typing import NamedTuple

import numpy as np
from pydantic import Field

from imago.evaluation.bootstrap import LEAST_PROBABILITY
from imago.evaluation.metrics import Finding
from imago.evaluation.report import EvaluationReport
from imago.evaluation.significance import mcnemar


class Comparison(Finding):
    """Two models on the same test pictures. McNemar's exact test: are the pictures that only one names even-handed?

    Those that have a default are missing from the decisions of earlier versions.
    """

    pictures: int
    champion_accuracy: float
    only_challenger_right: int
    only_champion_right: int
    p_value: float = Field(ge=0.0, le=1.0)  # two-sided
    challenger_accuracy: float | None = None
    challenger_log_loss: float | None = None
    champion_log_loss: float | None = None
    learned: int = 0  # test pictures that were left out because the champion learned from them

    @property
    def gain(self) -> int:
        """How many pictures more the challenger names right."""
        return self.only_challenger_right - self.only_champion_right


def compare(
    challenger: EvaluationReport,
    champion: EvaluationReport,
    *,
    learned: Collection[str] = (),
    classes: Collection[str] | None = None,
) -> Comparison:
    """Compare two reports on the same test pictures, picture by picture; of some `classes`, or of all.

    Those are left out that the champion `learned` from, by their SHA-256. Raises ValueError for reports on other
    pictures, or where none is left.
    """
    ours, theirs = _answers(challenger), _answers(champion)
    if [one.picture for one in ours] != [one.picture for one in theirs]:
        raise ValueError("The two reports are not about the same pictures.")
    known = set(learned)
    asked = [pair for pair in zip(ours, theirs, strict=True) if classes is None or pair[0].label in classes]
    pairs = [pair for pair in asked if pair[0].digest not in known]
    only_challenger = sum(mine.right and not other.right for mine, other in pairs)
    only_champion = sum(other.right and not mine.right for mine, other in pairs)
    return Comparison(
        pictures=len(pairs),
        champion_accuracy=fmean(other.right for _, other in pairs),
        only_challenger_right=only_challenger,
        only_champion_right=only_champion,
        p_value=mcnemar(only_challenger, only_champion),
        challenger_accuracy=fmean(mine.right for mine, _ in pairs),
        challenger_log_loss=fmean(mine.loss for mine, _ in pairs),
        champion_log_loss=fmean(other.loss for _, other in pairs),
        learned=len(asked) - len(pairs),
    )


def compare_on_shared_classes(
    challenger: EvaluationReport, champion: EvaluationReport, learned: Collection[str]
) -> Comparison | None:
    """Compare on the pictures of what the champion knows; None where those are all, or none."""
    known, unseen = set(champion.classes), set(learned)
    columns = (champion.predictions.column(name).to_pylist() for name in ("sha256", "label"))
    told = [label in known for digest, label in zip(*columns, strict=True) if digest not in unseen]
    if all(told) or not any(told):
        return None
    return compare(challenger, champion, learned=learned, classes=known)


class _Answer(NamedTuple):
    """What a model said of a picture."""

    digest: str
    label: str
    right: bool
    loss: float

    @property
    def picture(self) -> tuple[str, str]:
        return self.digest, self.label


def _answers(report: EvaluationReport) -> list[_Answer]:
    """Return the answers in the order of the pictures' bytes."""
    table = report.predictions
    digests, labels, right = (table.column(name).to_pylist() for name in ("sha256", "label", "correct"))
    column = {label: index for index, label in enumerate(report.metrics.classes)}
    flat = table.column("probabilities").combine_chunks().flatten().to_numpy()
    shown = flat.reshape(len(labels), -1)[np.arange(len(labels)), [column[label] for label in labels]]
    losses = -np.log(np.maximum(shown, LEAST_PROBABILITY, dtype=np.float64))
    return sorted(map(_Answer, digests, labels, right, losses.tolist()))
