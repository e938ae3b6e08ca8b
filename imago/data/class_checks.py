"""Defects of classes and of splits, judged by the pictures that are not quarantined."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

import pandas as pd
import scipy  # loads its parts when they are used

from imago.config import DataConfig
from imago.data.dataset import SPLITS
from imago.data.features import FEATURES
from imago.data.finding import Finding, counted, nothing, some
from imago.data.statistics import PictureTable

IMBALANCE = 10
SHIFT_DISTANCE = 0.35
SHIFT_P_VALUE = 1e-4
SHIFT_PICTURES = 20
_SEPARATORS = re.compile(r"(?<!\d)(?<!^)[\s_.,;:'’`´/()\[\]\"-]+|(?<=\d)[\s_.,;:'’`´/()\[\]\"-]+(?!\d)")
MEASURES = (*FEATURES, "width", "height", "aspect")


def class_missing_in_split(found: PictureTable, accepted: PictureTable, _: DataConfig) -> Finding:
    counts = _counts(found, accepted)
    filled = [split for split in SPLITS[1:] if counts[split].sum()]
    missing = {
        name: [split for split in filled if not counts.at[name, split]]
        for name in counts.index
        if counts.at[name, "train"]
    }
    missing = {name: splits for name, splits in missing.items() if splits}
    if not missing:
        return nothing("Every class is in every split.")
    listed = ", ".join(f"'{name}' in {' and '.join(splits)}" for name, splits in list(missing.items())[:3])
    rest = f" and {len(missing) - 3:,} more" if len(missing) > 3 else ""
    return _of(missing, f"{_classes(missing)} without a picture in a split: {listed}{rest}.", accepted)


def unknown_test_class(found: PictureTable, accepted: PictureTable, _: DataConfig) -> Finding:
    counts = _counts(found, accepted)
    unknown = list(counts.index[(counts["train"] == 0) & (counts["val"] + counts["test"] > 0)])
    if not unknown:
        return nothing("Every class in validation and test is in train too.")
    return _of(unknown, f"{_classes(unknown)} in validation or test, but not in train: {some(unknown)}.", accepted)


def class_too_small(found: PictureTable, accepted: PictureTable, config: DataConfig) -> Finding:
    had_train = set(found.frame.loc[found.frame["split"] == "train", "label"])
    counts = _counts(found, accepted)["train"]
    small = [name for name in counts.index if name in had_train and counts[name] < config.min_per_class]
    limit = counted(config.min_per_class, "picture", "pictures")
    if not small:
        return nothing(f"Every class has at least {limit} to train on.")
    listed = ", ".join(f"'{name}' has {counts[name]}" for name in small[:3])
    rest = f" and {len(small) - 3:,} more" if len(small) > 3 else ""
    return _of(small, f"{_classes(small)} with fewer than {limit} to train on: {listed}{rest}.", accepted)


def class_imbalance(found: PictureTable, accepted: PictureTable, _: DataConfig) -> Finding:
    counts = _counts(found, accepted)["train"]
    rare = [name for name in counts.index if 0 < counts[name] * IMBALANCE <= counts.max()]
    if not rare:
        return nothing(f"No class has a {IMBALANCE}th of the largest one's training pictures, or fewer.")
    sentence = f"{_classes(rare)} with a {IMBALANCE}th of the training pictures of '{counts.idxmax()}', or fewer"
    return _of(rare, f"{sentence}: {some(rare)}.", accepted)


def class_name_collision(_: PictureTable, accepted: PictureTable, __: DataConfig) -> Finding:
    spellings: dict[str, list[str]] = defaultdict(list)
    for name in sorted(set(accepted.frame["label"])):
        spellings[_letters(name)].append(name)
    collisions = [names for names in spellings.values() if len(names) > 1]
    if not collisions:
        return nothing("No two classes differ in spelling only.")
    colliding = [name for names in collisions for name in names]
    return _of(colliding, f"{_classes(colliding)} that differ in spelling only: {some(collisions[0])}.", accepted)


def split_outlier(_: PictureTable, accepted: PictureTable, __: DataConfig) -> Finding:
    frame = accepted.readable
    train = frame[frame["split"] == "train"]
    shifted = {split: _shift(train, frame[frame["split"] == split]) for split in SPLITS[1:]}
    shifted = {split: measures for split, measures in shifted.items() if measures}
    if not shifted:
        return nothing("The splits look alike.")
    listed = "; ".join(f"{split} in {', '.join(measures)}" for split, measures in shifted.items())
    sentence = f"{counted(len(shifted), 'split', 'splits')} unlike train: {listed}."
    return Finding(len(shifted), sentence, to_quarantine=[])


CLASS_CHECKS: dict[str, Callable[[PictureTable, PictureTable, DataConfig], Finding]] = {
    "class_missing_in_split": class_missing_in_split,
    "class_too_small": class_too_small,
    "class_imbalance": class_imbalance,
    "class_name_collision": class_name_collision,
    "unknown_test_class": unknown_test_class,
    "split_outlier": split_outlier,
}


def version_shift(accepted: PictureTable, previous: PictureTable | None) -> Finding:
    """Compare the training pictures with those of an earlier version of the data."""
    if previous is None:
        return nothing("There is no earlier version to compare with.")
    now, before = (table.readable[table.readable["split"] == "train"] for table in (accepted, previous))
    new, gone = sorted(set(now["label"]) - set(before["label"])), sorted(set(before["label"]) - set(now["label"]))
    measures = _shift(before, now)
    changes = []
    if new:
        changes.append(f"new classes {some(new)}")
    if gone:
        changes.append(f"classes no longer there {some(gone)}")
    if measures:
        changes.append(f"other {', '.join(measures)}")
    if not changes:
        return nothing("The pictures look like those of the earlier version.")
    return Finding(len(changes), f"Unlike the earlier version: {'; '.join(changes)}.", classes=new, to_quarantine=[])


def _shift(reference: pd.DataFrame, current: pd.DataFrame) -> list[str]:
    if min(len(reference), len(current)) < SHIFT_PICTURES:
        return []
    tests = {name: scipy.stats.ks_2samp(reference[name], current[name], method="asymp") for name in MEASURES}
    return [name for name, test in tests.items() if test.statistic >= SHIFT_DISTANCE and test.pvalue < SHIFT_P_VALUE]


def _counts(found: PictureTable, accepted: PictureTable) -> pd.DataFrame:
    frame = accepted.frame
    counts = pd.crosstab(frame["label"], frame["split"])
    return counts.reindex(index=sorted(set(found.frame["label"])), columns=list(SPLITS), fill_value=0)


def _of(classes: Iterable[str] | Mapping[str, object], sentence: str, accepted: PictureTable) -> Finding:
    names = list(classes)
    pictures = list(accepted.frame.loc[accepted.frame["label"].isin(names), "id"])
    return Finding(len(names), sentence, classes=names, to_quarantine=pictures)


def _classes(names: Iterable[str]) -> str:
    return counted(len(list(names)), "class", "classes")


def _letters(name: str) -> str:
    """Return a name without what only separates its words; a sign or a point of a number is part of it."""
    return _SEPARATORS.sub("", unicodedata.normalize("NFKC", name).casefold().strip())
