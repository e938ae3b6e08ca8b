"""Pictures that are there more than once, and names that contradict each other."""

from collections.abc import Callable

import pandas as pd

from imago.data.finding import Finding, counted, nothing, some
from imago.data.near_duplicates import Look, near_duplicate_groups
from imago.data.statistics import PictureTable

LAST_TO_LEAVE = ("train", "val", "test")
"""Of a picture in two splits the copy in the earlier of these is left out; what is in test stays."""

Groups = list[pd.DataFrame]


def duplicate_in_split(table: PictureTable) -> Finding:
    groups = [
        copies for same in _exact(table) for _, copies in same.groupby(["label", "split"], sort=True) if len(copies) > 1
    ]
    return _of(groups, "the same picture more than once in a split", "No split holds the same picture twice.")


def duplicate_across_splits(table: PictureTable) -> Finding:
    groups = [same for same in _exact(table) if same["split"].nunique() > 1]
    return _of(groups, "the same picture in two splits", "No picture is in two splits.", _learnt)


def label_conflict(table: PictureTable) -> Finding:
    groups = [same for same in _exact(table) if same["label"].nunique() > 1]
    return _of(groups, "the same picture under two names", "No picture is there under two names.", _contradicted)


def near_duplicate_in_split(alike: Groups) -> Finding:
    groups = [
        copies
        for group in alike
        for _, copies in group.groupby(["label", "split"], sort=True)
        if copies["sha256"].nunique() > 1
    ]
    return _of(groups, "nearly the same picture twice in a split", "No split holds nearly the same picture twice.")


def near_duplicate_across_splits(alike: Groups) -> Finding:
    groups = [group for group in alike if group["split"].nunique() > 1]
    return _of(groups, "nearly the same picture in two splits", "No two splits hold nearly the same picture.", _learnt)


def near_label_conflict(alike: Groups) -> Finding:
    groups = [group for group in alike if group["label"].nunique() > 1]
    otherwise = "No two names share nearly the same picture."
    return _of(groups, "nearly the same picture under two names", otherwise, _contradicted)


COPY_CHECKS: dict[str, Callable[[PictureTable], Finding]] = {
    "duplicate_in_split": duplicate_in_split,
    "duplicate_across_splits": duplicate_across_splits,
    "label_conflict": label_conflict,
}

NEAR_COPY_CHECKS: dict[str, Callable[[Groups], Finding]] = {
    "near_duplicate_in_split": near_duplicate_in_split,
    "near_duplicate_across_splits": near_duplicate_across_splits,
    "near_label_conflict": near_label_conflict,
}


def near_copies(table: PictureTable, look: Look | None = None) -> Groups:
    """Return groups of rows that look alike, each with at least two different files.

    `look` gives a picture's pixels by its row in the table; without it, only nearly equal hashes are alike.
    """
    frame = table.readable
    rows = list(frame.index)
    colours = frame[["red", "green", "blue"]].to_numpy(dtype=float)
    closer = None if look is None else lambda index: look(rows[index])
    alike = near_duplicate_groups(list(frame["dhash"]), colours, list(frame["outline"]), closer)
    groups = [frame.iloc[indices] for indices in alike]
    return [group for group in groups if group["sha256"].nunique() > 1]


def _exact(table: PictureTable) -> Groups:
    frame = table.readable
    copied = frame[frame["sha256"].duplicated(keep=False)]
    return [same for _, same in copied.groupby("sha256", sort=False)]


def _of(
    groups: Groups, what: str, otherwise: str, leaving: Callable[[pd.DataFrame], pd.DataFrame] | None = None
) -> Finding:
    if not groups:
        return nothing(otherwise)
    named = sorted(sorted(group["id"]) for group in groups)
    pictures = sorted({name for group in named for name in group})
    gone = None if leaving is None else sorted({name for group in groups for name in leaving(group)["id"]})
    sentence = f"{counted(len(groups), 'group', 'groups')} of {what}: {some(named[0])}."
    return Finding(len(groups), sentence, pictures=pictures, groups=named, to_quarantine=gone)


def _learnt(group: pd.DataFrame) -> pd.DataFrame:
    """Return the copies outside the split that is learnt from least."""
    leaving: pd.DataFrame = group[group["split"] != max(group["split"], key=LAST_TO_LEAVE.index)]
    return leaving


def _contradicted(group: pd.DataFrame) -> pd.DataFrame:
    """Return the copies whose names contradict each other; those in test stay unless they do so among themselves."""
    test = group["split"] == "test"
    return group if group.loc[test, "label"].nunique() > 1 else group[~test]
