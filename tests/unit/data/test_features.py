"""The numbers that say what a picture looks like."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageFilter

from imago.data.features import FEATURES, picture_features
from tests.unit.data.pictures import moth


def plain(colour: tuple[int, int, int], height: int = 40, width: int = 60) -> np.ndarray:
    return np.full((height, width, 3), colour, dtype=np.uint8)


def test_a_plain_picture_has_its_colour_and_no_contrast() -> None:
    features = picture_features(plain((255, 0, 51)))
    assert tuple(features) == FEATURES
    assert (features["red"], features["green"], features["blue"]) == pytest.approx((1.0, 0.0, 0.2))
    assert features["brightness"] == pytest.approx(0.299 + 0.114 * 0.2, abs=1 / 255)
    assert features["contrast"] == pytest.approx(0, abs=1e-9)
    assert features["sharpness"] == 0


def test_half_black_half_white_has_a_contrast_of_a_half() -> None:
    picture = plain((0, 0, 0))
    picture[:, 30:] = 255
    features = picture_features(picture)
    assert features["brightness"] == pytest.approx(0.5)
    assert features["contrast"] == pytest.approx(0.5)


def test_blur_lowers_sharpness_and_nothing_else_much() -> None:
    sharp = moth(0, 0, 128)
    blurred = np.asarray(Image.fromarray(sharp).filter(ImageFilter.GaussianBlur(2)))
    before, after = picture_features(sharp), picture_features(blurred)
    assert after["sharpness"] < before["sharpness"] / 3
    for name in ("brightness", "red", "green", "blue"):
        assert after[name] == pytest.approx(before[name], abs=0.02)


def test_large_pictures_are_averaged_before_they_are_measured() -> None:
    small = moth(1, 0, 256)
    large = np.asarray(Image.fromarray(small).resize((1024, 1024), Image.Resampling.NEAREST))
    before, after = picture_features(small), picture_features(large)
    for name in FEATURES:
        assert after[name] == pytest.approx(before[name], abs=1e-6)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 500), (2, 2), (700, 1)])
def test_the_smallest_pictures_can_be_measured(height: int, width: int) -> None:
    features = picture_features(plain((128, 128, 128), height, width))
    assert features["brightness"] == pytest.approx(128 / 255)
    assert features["sharpness"] == 0


def test_the_endpoint_gets_no_pandas_with_them() -> None:
    code = "import imago.data.features, sys; sys.exit('pandas' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
