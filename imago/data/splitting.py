"""Splits for pictures that came without: stratified by class, copies kept together, the same for the same seed."""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from imago.data.dataset import Split
from imago.data.features import luma_of, shrunk
from imago.data.near_duplicates import near_duplicates, outline
from imago.data.neighbours import Outlines
from imago.data.transforms import MAX_PIXELS, RGB, UnreadablePicture, decode


def assign_splits(
    labels: Sequence[str], groups: Sequence[str], *, val_fraction: float, test_fraction: float, seed: int
) -> list[Split]:
    """Give each picture a split, such that every group of pictures lies within one.

    Each class keeps a group in train; one with two groups or more gets one in test, with three or more one in val too,
    where that fraction is above 0. The order of the pictures does not matter: groups are dealt out by a hash of their
    names and the seed, so a picture that is added moves few others.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        members[group].append(index)
    groups_of_class: dict[str, list[str]] = defaultdict(list)
    for group, indices in members.items():
        groups_of_class[_main_label([labels[index] for index in indices])].append(group)

    splits: list[Split] = ["train"] * len(labels)
    for names in groups_of_class.values():
        sizes = {name: len(members[name]) for name in sorted(names, key=lambda name: _draw(seed, name))}
        for name, split in _deal(sizes, val_fraction, test_fraction).items():
            for index in members[name]:
                splits[index] = split
    return splits


def look_alike_groups(
    count: int, read: Callable[[int], bytes], *, max_pixels: int = MAX_PIXELS, turned: bool = False
) -> list[str]:
    """Name for each of `count` pictures the group of its copies and near-duplicates.

    A group is named by the smallest sha256 in it, so its name does not depend on the order of the pictures. What cannot
    be decoded is alike only to its exact copies. With `turned`, mirror images and quarter turns are copies as well.
    """

    def look(index: int) -> tuple[str, Outlines | None]:
        data = read(index)
        # A picture that is missing is no copy of another missing one.
        digest = hashlib.sha256(data or f"missing {index}".encode()).hexdigest()
        try:
            picture = shrunk(decode(data, max_pixels=max_pixels))
        except UnreadablePicture:
            return digest, None
        return digest, outline(luma_of(picture).levels)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        looks = list(pool.map(look, range(count)))
    names = [digest for digest, _ in looks]
    first = {digest: index for index, digest in reversed(list(enumerate(names)))}
    seen = {index: found for index in sorted(first.values()) if (found := looks[index][1]) is not None}
    readable = list(seen)
    outlines = np.array(list(seen.values()), dtype=np.uint8)

    def pixels(position: int) -> RGB:
        return decode(read(readable[position]), max_pixels=max_pixels)

    group_of: dict[str, str] = {}
    for alike in near_duplicates(outlines, pixels, turned=turned):
        members = [names[readable[position]] for position in alike.members]
        group_of |= dict.fromkeys(members, min(members))
    return [group_of.get(name, name) for name in names]


def _deal(sizes: dict[str, int], val_fraction: float, test_fraction: float) -> dict[str, Split]:
    """Deal the groups of one class: test is filled first, then val; a group that would overfill is passed over."""
    dealt: dict[str, Split] = dict.fromkeys(sizes, "train")
    wanted: tuple[tuple[Split, float, int], ...] = (("test", test_fraction, 2), ("val", val_fraction, 3))
    for split, fraction, least in wanted:
        train = [name for name in sizes if dealt[name] == "train"]
        if fraction <= 0 or len(sizes) < least or len(train) < 2:
            continue
        left = max(1, round(fraction * sum(sizes.values())))
        chosen: list[str] = []
        for name in train:
            if sizes[name] <= left and len(chosen) < len(train) - 1:
                chosen.append(name)
                left -= sizes[name]
        dealt.update(dict.fromkeys(chosen or [min(train, key=sizes.__getitem__)], split))
    return dealt


def _main_label(labels: Sequence[str]) -> str:
    counts = Counter(labels)
    return min(counts, key=lambda label: (-counts[label], label))


def _draw(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed} {name}".encode()).digest()
