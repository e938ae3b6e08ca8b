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


def test_what_a_manifest_says_makes_slices() -> None:
    attributes = [{"camera": "phone" if row % 3 else "Nikon", "height": row / 10} for row in range(90)]
    right = np.array([row % 3 == 0 or row % 2 == 0 for row in range(90)])
    found = find_slices(right, ["moth"] * 90, {}, attributes)
    assert [(entry.by, entry.value, entry.count) for entry in found] == [
        ("camera", "phone", 60),
        ("height", "2.967 to 5.933", 30),
        ("height", "above 5.933", 30),
        ("height", "up to 2.967", 30),
        ("camera", "Nikon", 30),
    ]
    assert [entry.weak for entry in found] == [True, False, False, False, False]


def test_few_numbers_are_told_one_by_one_and_what_is_missing_is_in_no_slice() -> None:
    attributes = [
        {} if row % 10 == 0 else {"flash": float(row % 2), "brightness": "x" * (row % 2)} for row in range(60)
    ]
    found = find_slices(np.ones(60, dtype=bool), ["moth"] * 60, {}, attributes)
    assert {(entry.by, entry.value, entry.count) for entry in found} == {
        ("flash", "0", 24), ("flash", "1", 30), ("brightness (manifest)", "", 24), ("brightness (manifest)", "x", 30),
    }  # fmt: skip


def test_a_site_that_fails_is_found_by_its_code() -> None:
    sites = [{"site": float(row % 6 + 1), "year": 1990.0 + row % 24} for row in range(120)]
    right = np.array([row % 6 != 3 for row in range(120)])
    found = find_slices(right, ["moth"] * 120, {}, sites)
    assert {entry.value: (entry.count, entry.accuracy) for entry in found if entry.by == "site"} == {
        str(code): (20, float(code != 4)) for code in range(1, 7)
    }
    assert [(entry.by, entry.value) for entry in found if entry.weak] == [("site", "4")]
    assert {entry.value for entry in found if entry.by == "year"} == {"up to 1998", "1998 to 2005", "above 2005"}


def test_whole_numbers_of_which_none_is_frequent_are_parted_in_thirds() -> None:
    found = find_slices(np.ones(60, dtype=bool), ["moth"] * 60, {}, [{"age": float(row % 15)} for row in range(60)])
    assert sorted(entry.count for entry in found) == [20, 20, 20]


def test_each_text_that_is_frequent_enough_is_a_slice() -> None:
    sites = [{"site": f"site {row // 5}"} for row in range(120)]
    assert len(find_slices(np.ones(120, dtype=bool), ["moth"] * 120, {}, sites)) == 24


def test_classes_taught_with_few_pictures_are_a_slice() -> None:
    labels = [name for name in "abcdef" for _ in range(10)]
    sizes = np.repeat([5.0, 5.0, 50.0, 50.0, 500.0, 500.0], 10)
    right = (np.arange(60) >= 20) | (np.arange(60) % 2 == 0)
    found = {(entry.by, entry.value): entry for entry in find_slices(right, labels, {"class size": sizes})}
    rare = found["class size", "rare"]
    assert (rare.count, rare.accuracy, rare.weak) == (20, 0.5, True)
    assert not found["class size", "frequent"].weak


def test_a_tied_value_parts_what_lies_below_and_above_it() -> None:
    sizes = np.repeat([10.0, 100.0], [20, 80])  # a picture each of 20 rare classes and of 80 others
    right = (sizes > 10) | (np.arange(100) % 4 == 0)
    found = find_slices(right, ["moth"] * 100, {"class size": sizes, "pixels": np.repeat([4096.0, 65536.0], [25, 75])})
    parts = {(entry.by, entry.value): (entry.count, entry.weak) for entry in found}
    assert parts == {
        ("class size", "rare"): (20, True),
        ("class size", "middling"): (80, False),
        ("pixels", "small"): (25, True),
        ("pixels", "middling"): (75, False),
    }


def test_a_number_of_a_manifest_that_is_mostly_one_is_parted_there() -> None:
    heights = [-2.5] * 5 + [0.0] * 80 + [row + 0.5 for row in range(15)]
    found = find_slices(np.ones(100, dtype=bool), ["moth"] * 100, {}, [{"height": height} for height in heights])
    assert {entry.value: entry.count for entry in found} == {"below 0": 5, "0": 80, "above 0": 15}


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
