from pathlib import Path

import numpy as np
import pytest

from imago.evaluation.robustness import CORRUPTIONS, STRENGTHS, measure_robustness
from imago.serving.runtime import Runtime
from tests.packages import colour_dataset, make_package, picture

RNG = np.random.default_rng


@pytest.mark.parametrize("name", sorted(CORRUPTIONS))
def test_a_stronger_corruption_changes_the_picture_more(name: str) -> None:
    slope = np.linspace(-60, 60, 64)[:, None, None] * np.array([1, -1, 1])
    clean = (picture("red", size=(64, 64), noise=25.0) + slope).clip(0, 255).astype(np.uint8)
    changes = []
    for strength in STRENGTHS:
        worse = CORRUPTIONS[name](clean, strength, RNG(0))
        assert worse.shape == clean.shape
        assert worse.dtype == np.uint8
        changes.append(np.abs(worse.astype(float) - clean).mean())
    assert 0 < changes[0] < changes[1] < changes[2]


def test_a_crop_shows_less_of_the_picture_at_the_same_size() -> None:
    across, down = np.meshgrid(np.arange(200), np.arange(100))
    clean = np.stack([across, down, 0 * down], axis=-1).astype(np.uint8)
    for strength, kept in zip(STRENGTHS, (0.9, 0.8, 0.65), strict=True):
        places = set()
        for seed in range(20):
            worse = CORRUPTIONS["crop"](clean, strength, RNG(seed)).astype(int)
            spans = [np.ptp(worse[..., channel]) for channel in (0, 1)]
            assert spans == [pytest.approx(200 * kept, abs=2), pytest.approx(100 * kept, abs=2)]
            places.add((worse[0, 0, 0], worse[0, 0, 1]))
        assert len(places) > 10


def test_a_model_of_mean_colours_bears_blur_but_not_darkness(tmp_path: Path) -> None:
    runtime = Runtime(make_package(tmp_path / "package", ("green", "red", "yellow")))
    test = colour_dataset(classes=("green", "red", "yellow"), test=12).split("test")
    found = measure_robustness(runtime, test, seed=1)
    assert len(found) == len(CORRUPTIONS) * len(STRENGTHS)
    by_name = {(result.corruption, result.strength): result for result in found}
    assert by_name["blur", 3].clean_accuracy == by_name["blur", 3].accuracy == 1.0
    assert by_name["blur", 3].drop == 0.0
    assert by_name["brightness", 3].accuracy < 1.0  # a yellow at half the light is nearest to green
    assert by_name["brightness", 3].drop == 1.0 - by_name["brightness", 3].accuracy


def test_what_chance_may_explain_is_not_called_hurt(tmp_path: Path) -> None:
    runtime = Runtime(make_package(tmp_path / "package", ("green", "red", "yellow")))
    test = colour_dataset(classes=("green", "red", "yellow"), test=24).split("test")
    found = {
        limit: {(one.corruption, one.strength): one for one in measure_robustness(runtime, test, seed=1, limit=limit)}
        for limit in (12, 72)
    }
    few, many = found[12]["brightness", 3], found[72]["brightness", 3]
    lost = round(many.drop * many.count)
    assert lost >= 12
    assert few.drop > 0.10
    assert many.p_value == pytest.approx(2 * 0.5**lost)  # all of them right before, and none the other way
    assert (few.hurt, many.hurt) == (False, True)
    assert (found[72]["blur", 3].p_value, found[72]["blur", 3].hurt) == (1.0, False)


def test_the_same_seed_measures_the_same(tmp_path: Path) -> None:
    runtime = Runtime(make_package(tmp_path / "package"))
    test = colour_dataset(test=8).split("test")
    first = measure_robustness(runtime, test, seed=4, limit=10)
    assert first == measure_robustness(runtime, test, seed=4, limit=10)
    assert {result.count for result in first} == {10}
