"""Labels that were flipped on purpose are found, by a classifier that did not learn from them."""

import torch

from imago.training.features import Features, out_of_sample_probabilities
from imago.training.mislabelled import find_mislabelled

CLASSES = ("atlas", "luna", "io", "emperor")


def _clouds(count: int, seed: int) -> Features:
    """Four clouds of points that overlap a little."""
    centres = torch.randn(4, 20, generator=torch.Generator().manual_seed(0)) * 3.0
    labels = torch.arange(count) % 4
    return centres[labels] + torch.randn(count, 20, generator=torch.Generator().manual_seed(seed)), labels


def test_flipped_labels_come_first_with_what_the_picture_looks_like() -> None:
    points, truth = _clouds(400, 1)
    flipped = torch.randperm(400, generator=torch.Generator().manual_seed(2))[:20]
    labels = truth.clone()
    labels[flipped] = (labels[flipped] + 1) % 4
    ids = [f"{row:03d}.jpg" for row in range(400)]
    suspects = find_mislabelled((points, labels), ids, CLASSES)
    assert suspects is not None
    first = suspects[:20]
    wrong = {ids[row] for row in flipped.tolist()}
    assert sum(one.id in wrong for one in first) >= 18
    assert [one.probability for one in suspects] == sorted(one.probability for one in suspects)
    for one in first:
        if one.id in wrong:
            row = ids.index(one.id)
            assert one.label == CLASSES[labels[row]]
            assert one.likelier == CLASSES[truth[row]]


def test_clouds_that_lie_apart_are_above_suspicion() -> None:
    points, labels = _clouds(200, 1)
    assert find_mislabelled((points + 20 * labels[:, None], labels), [str(row) for row in range(200)], CLASSES) == []


def test_a_class_of_a_few_pictures_is_not_judged() -> None:
    points, labels = _clouds(200, 1)
    keep = (labels != 3) | (torch.arange(200) < 8)  # two of the last class
    ids = [str(row) for row in range(int(keep.sum()))]
    suspects = find_mislabelled((points[keep], labels[keep]), ids, CLASSES)
    assert suspects is not None
    assert "emperor" not in {one.label for one in suspects}


def test_where_a_classifier_learns_nothing_nobody_is_accused() -> None:
    points, labels = _clouds(8, 1)
    assert find_mislabelled((points, labels), [str(row) for row in range(8)], CLASSES) is None
    noise = torch.randn(200, 20, generator=torch.Generator().manual_seed(3))
    assert find_mislabelled((noise, torch.arange(200) % 4), [str(row) for row in range(200)], CLASSES) is None


def test_every_picture_is_judged_by_a_head_that_did_not_see_it() -> None:
    points, labels = torch.eye(40), torch.arange(40) % 2  # which can be learned by heart, and in no other way
    probabilities = out_of_sample_probabilities((points, labels), 2, folds=5)
    assert abs(probabilities - 0.5).max() < 0.1
    assert abs(probabilities.sum(1) - 1).max() < 1e-6
