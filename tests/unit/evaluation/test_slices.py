import numpy as np

from imago.evaluation.slices import find_slices


def test_a_dark_third_that_fails_is_called_weak_and_comes_first() -> None:
    brightness = np.linspace(0, 1, 90)
    right = brightness > 0.25
    slices = find_slices(right, ["moth"] * 90, {"brightness": brightness})
    assert (slices[0].by, slices[0].value, slices[0].count, slices[0].weak) == ("brightness", "dark", 30, True)
    assert slices[0].accuracy == right[:30].mean()
    assert not any(entry.weak for entry in slices[1:])


def test_a_class_that_fails_is_called_weak() -> None:
    labels = ["atlas"] * 20 + ["luna"] * 20 + ["io"] * 20
    right = np.array([True] * 40 + [True, False] * 10)
    weak = [entry for entry in find_slices(right, labels, {}) if entry.weak]
    assert [(entry.by, entry.value, entry.accuracy) for entry in weak] == [("class", "io", 0.5)]


def test_chance_alone_is_hardly_ever_called_weak() -> None:
    rng = np.random.default_rng(0)
    called = 0
    for _ in range(100):
        right = rng.random(120) < 0.85
        labels = [f"class {index % 12}" for index in range(120)]
        features = {name: rng.random(120) for name in ("brightness", "contrast", "sharpness", "pixels")}
        called += any(entry.weak for entry in find_slices(right, labels, features))
    assert called <= 10


def test_a_feature_that_does_not_vary_makes_no_slice() -> None:
    assert find_slices(np.array([True, False] * 10), ["moth"] * 20, {"pixels": np.full(20, 224.0)}) == []


def test_a_slice_of_few_pictures_is_not_judged() -> None:
    right = np.array([True] * 20 + [False] * 4)
    assert [entry.value for entry in find_slices(right, ["many"] * 20 + ["few"] * 4, {})] == ["many"]
