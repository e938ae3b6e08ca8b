"""Finds training pictures that probably bear a wrong label."""

from collections.abc import Sequence

import numpy as np

from imago.serving.package import Suspect
from imago.training.features import Features, out_of_sample_probabilities

_FOLDS = 5
_WITNESS = 0.5


def find_mislabelled(features: Features, ids: Sequence[str], classes: Sequence[str]) -> list[Suspect] | None:
    """Return the pictures that probably bear a wrong label, the least possible label first.

    Confident learning (Northcutt et al. 2021, https://arxiv.org/abs/1911.00068) says how many there are, from what
    logistic regressions on a frozen backbone's features say of pictures that they were not fitted to. Where these are
    as often wrong as right, they are no witnesses, and None is returned.
    """
    from cleanlab.filter import find_label_issues  # takes seconds to import

    labels = features[1].numpy()
    if len(labels) < 2 * _FOLDS:
        return None
    probabilities = out_of_sample_probabilities(features, len(classes), _FOLDS)
    if np.mean(probabilities.argmax(axis=1) == labels) <= _WITNESS:
        return None
    rows = find_label_issues(
        labels,
        probabilities,
        filter_by="low_self_confidence",
        return_indices_ranked_by="self_confidence",
        n_jobs=1,
    )
    counts = np.bincount(labels)  # of too few pictures of a class nobody can say which is odd
    return [
        Suspect(
            id=ids[row],
            label=classes[labels[row]],
            likelier=classes[int(probabilities[row].argmax())],
            probability=float(probabilities[row, labels[row]]),
        )
        for row in rows.tolist()
        if counts[labels[row]] >= _FOLDS and probabilities[row].argmax() != labels[row]
    ]
