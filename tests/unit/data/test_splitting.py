from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imago.config import SyntheticConfig
from imago.data.splitting import assign_splits, look_alike_groups
from imago.data.synthetic import synthetic_dataset
from tests.unit.data.pictures import encode, moth


def split(labels, groups=None, *, val=0.2, test=0.1, seed=0):
    groups = groups or [f"group {index}" for index in range(len(labels))]
    return assign_splits(labels, groups, val_fraction=val, test_fraction=test, seed=seed)


def test_each_class_is_split_by_the_fractions():
    labels = ["a"] * 50 + ["b"] * 30
    counts = Counter(zip(labels, split(labels), strict=True))
    assert counts == {
        ("a", "train"): 35,
        ("a", "val"): 10,
        ("a", "test"): 5,
        ("b", "train"): 21,
        ("b", "val"): 6,
        ("b", "test"): 3,
    }


def test_same_seed_gives_same_splits_in_any_order_of_the_pictures():
    labels = ["a", "b"] * 40
    groups = [f"group {index}" for index in range(80)]
    order = np.random.default_rng(0).permutation(80)
    forward = split(labels, groups)
    shuffled = split([labels[i] for i in order], [groups[i] for i in order])
    assert [forward[i] for i in order] == shuffled
    assert split(labels, groups, seed=1) != forward


def test_added_pictures_move_few_of_the_others():
    before = split(["a"] * 100)
    after = split(["a"] * 101)[:100]
    assert sum(x != y for x, y in zip(before, after, strict=True)) <= 4


@pytest.mark.parametrize(
    ("pictures", "expected"), [(1, {"train"}), (2, {"train", "test"}), (3, {"train", "val", "test"})]
)
def test_small_class_keeps_a_picture_in_train(pictures, expected):
    assert set(split(["a"] * pictures)) == expected
    assert split(["a"] * pictures).count("train") == 1


def test_split_with_fraction_zero_gets_nothing():
    assert set(split(["a"] * 40, test=0.0)) == {"train", "val"}


def test_class_of_one_large_group_stays_in_train():
    assert split(["a"] * 10, ["same"] * 10) == ["train"] * 10


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 12)), min_size=1, max_size=60), st.integers(0, 5))
def test_group_never_straddles_splits_and_no_class_leaves_train(rows, seed):
    labels = [label for label, _ in rows]
    groups = [f"{label} {group}" for label, group in rows]
    splits = split(labels, groups, seed=seed)
    assert len(set(zip(groups, splits, strict=True))) == len(set(groups))
    assert {label for label, name in zip(labels, splits, strict=True) if name == "train"} == set(labels)


def test_group_with_two_labels_never_straddles_splits():
    labels = ["a", "b"] * 20
    splits = split(labels, [f"group {index // 2}" for index in range(40)])
    assert splits[::2] == splits[1::2]


def test_copies_and_re_encoded_pictures_are_one_group():
    picture = moth(0, 1)
    images = [encode(picture), encode(picture), encode(picture, quality=60), encode(picture, "PNG"), encode(moth(0, 2))]
    groups = look_alike_groups(len(images), images.__getitem__)
    assert len(set(groups[:4])) == 1
    assert groups[4] != groups[0]


def test_name_of_a_group_does_not_depend_on_the_order():
    picture = moth(1, 1)
    images = [encode(picture), encode(picture, quality=70), encode(moth(1, 2))]
    forward = look_alike_groups(3, images.__getitem__)
    backward = look_alike_groups(3, images[::-1].__getitem__)
    assert forward == backward[::-1]


def test_undecodable_pictures_are_alike_only_to_their_exact_copies():
    images = [b"no picture", b"no picture", b"another", b"", b""]
    groups = look_alike_groups(len(images), images.__getitem__)
    assert groups[0] == groups[1]
    assert len(set(groups)) == 4


def test_synthetic_moths_are_all_different():
    dataset = synthetic_dataset(SyntheticConfig(species=4, per_class_train=20), 64, seed=0)
    assert len(set(look_alike_groups(len(dataset), dataset.image))) == len(dataset)
