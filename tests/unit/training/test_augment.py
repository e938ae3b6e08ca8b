"""An augmented picture is another view of the same thing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from imago.errors import ConfigError
from imago.training.augment import Augmentation, _turned, augment, check_rand_augment, random_crop, vary_light

GRADIENT = np.stack([np.tile(np.linspace(0, 255, 48), (40, 1))] * 3, axis=-1).astype(np.uint8)


def test_the_same_seed_gives_the_same_view_and_another_seed_another() -> None:
    how = Augmentation(degrees=10)
    one, same, other = (augment(GRADIENT, 32, np.random.default_rng(seed), how) for seed in (3, 3, 4))
    assert one.shape == (32, 32, 3)
    assert one.dtype == np.uint8
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_views_are_mirrored_every_other_time() -> None:
    how = Augmentation(smallest_crop=1.0, stretch=1.0, colour=0.0)
    views = [augment(GRADIENT[:, :40], 40, np.random.default_rng(seed), how) for seed in range(40)]
    mirrored = [np.array_equal(view, GRADIENT[:, :40][:, ::-1]) for view in views]
    upright = [np.array_equal(view, GRADIENT[:, :40]) for view in views]
    assert all(a != b for a, b in zip(mirrored, upright, strict=True))
    assert 10 <= sum(mirrored) <= 30


@pytest.mark.parametrize("side", [48, 200])
def test_a_turned_view_shows_what_the_upright_one_does_and_the_mean_around_it(side: int) -> None:
    picture = np.zeros((side, side, 3), dtype=np.uint8)
    picture[: side // 2, : side // 2] = 240  # a quarter, whose corner is the centre
    how = Augmentation(smallest_crop=1.0, stretch=1.0, colour=0.0, degrees=30)
    views = [augment(picture, 48, np.random.default_rng(seed), how) for seed in range(20)]
    views += [view[:, ::-1] for view in views]  # half of them were mirrored
    turned = [view for view in views if view[16, 16, 0] > 200]
    assert len(turned) == 20
    for view in turned:
        assert view[24:, 30:].max() <= 62  # what is black, and the mean, which is a quarter of 240
        assert abs(float(view.mean()) - 60) < 12
    assert len({view.tobytes() for view in turned}) == 20


def test_an_unturned_view_of_a_box_is_the_box() -> None:
    image = Image.fromarray(GRADIENT)
    view = np.asarray(_turned(image, 20, (10.0, 5.0, 30.0, 25.0), 0.0))
    assert np.array_equal(view, GRADIENT[5:25, 10:30])


@given(
    width=st.integers(8, 400),
    height=st.integers(8, 400),
    smallest=st.floats(0.05, 1.0),
    stretch=st.floats(1.0, 2.0),
    seed=st.integers(0, 1000),
)
def test_a_crop_lies_within_the_picture(width: int, height: int, smallest: float, stretch: float, seed: int) -> None:
    how = Augmentation(smallest_crop=smallest, stretch=stretch)
    left, top, right, bottom = random_crop(width, height, np.random.default_rng(seed), how)
    assert 0 <= left < right <= width + 1e-6
    assert 0 <= top < bottom <= height + 1e-6


def test_the_light_varies_within_its_strength() -> None:
    grey = np.full((4, 4, 3), 100, dtype=np.uint8)
    levels = [int(vary_light(grey, np.random.default_rng(seed), 0.2).max()) for seed in range(200)]
    assert 79 <= min(levels) < 85
    assert 115 < max(levels) <= 120
    assert np.array_equal(vary_light(grey, np.random.default_rng(0), 0.0), grey)


@pytest.mark.parametrize("policy", ["rand", "rand-m7-n2", "rand-m9-mstd0.5-inc1", "rand-m5-tweights"])
def test_a_policy_of_timm_is_known(policy: str) -> None:
    check_rand_augment(policy)


@pytest.mark.parametrize("policy", ["", "m7", "augmix-m3", "rand-m7-q2", "rand-m7-nx", "rand-strong"])
def test_a_policy_that_timm_does_not_know_or_skips_is_refused(policy: str) -> None:
    with pytest.raises(ConfigError, match=f"training.rand_augment: '{policy}' is no policy"):
        check_rand_augment(policy)
