"""What a good model does: bear small changes, be less sure of worse pictures, and know every class.

After Ribeiro et al. 2020, https://arxiv.org/abs/2005.04118: invariance, direction, minimum function.
"""

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from imago.data.transforms import RGB
from imago.evaluation.robustness import blurred, compressed, exposed
from tests.model.conftest import Subject

SHIFT = 3  # pixels of what the model sees


def shifted(picture: RGB, down: int, right: int) -> RGB:
    """Move what is shown; the edge is repeated where it left."""
    margin = max(abs(down), abs(right))
    height, width = picture.shape[:2]
    wide = np.pad(picture, ((margin, margin), (margin, margin), (0, 0)), mode="edge")
    return wide[margin - down : margin - down + height, margin - right : margin - right + width]


INVARIANCES: dict[str, tuple[Callable[[RGB], RGB], float]] = {  # a change, and how many answers must outlive it
    "shifted down and right": (lambda picture: shifted(picture, SHIFT, SHIFT), 0.85),
    "shifted up and left": (lambda picture: shifted(picture, -SHIFT, -SHIFT), 0.85),
    "JPEG of quality 75": (lambda picture: compressed(picture, 75), 0.9),
    "10 % brighter": (lambda picture: exposed(picture, 1.1), 0.9),
    "10 % darker": (lambda picture: exposed(picture, 0.9), 0.9),
}
BLURS = (0.005, 0.01, 0.02)  # radius, as shares of the side
SURER = 0.01  # by so much may a step of blur make it surer, on average
RIGHT = 0.5  # share of each class's pictures


@pytest.mark.parametrize("change", INVARIANCES)
def test_the_answer_outlives_a_change_that_does_not_matter(subject: Subject, change: str) -> None:
    apply, least = INVARIANCES[change]
    before, after = subject.answers(subject.untouched), subject.answers(subject.probabilities(apply))
    kept = float((before == after).mean())
    assert kept >= least, f"{change}: {kept:.1%} of {len(before)} answers stay, fewer than {least:.0%}"


def test_more_blur_does_not_make_it_surer(subject: Subject) -> None:
    sureness = [float(subject.untouched.max(axis=1).mean())]
    sureness += [
        float(subject.probabilities(lambda picture, radius=radius: blurred(picture, radius)).max(axis=1).mean())
        for radius in BLURS
    ]
    assert all(more <= less + SURER for less, more in itertools.pairwise(sureness)), sureness


def test_a_class_is_named_right(subject: Subject, label: str) -> None:
    shown = subject.labels == label
    if not shown.any():
        pytest.skip(f"no test picture shows {label}")
    right = float((subject.answers(subject.untouched)[shown] == label).mean())
    assert right >= RIGHT, f"{label}: {right:.0%} of {shown.sum()} pictures are named right, fewer than {RIGHT:.0%}"
