"""Pictures that are there more than once, and names that contradict each other."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import pandas as pd

from imago.data.finding import Finding, counted, nothing, some
from imago.data.near_duplicates import Look, near_duplicates
from imago.data.statistics import PictureTable

LAST_TO_LEAVE = ("train", "val", "test")
"""Of a picture in two splits the copy in the earlier of these is left out; what is in test stays."""


@dataclass(frozen=True)
class Copies:
    """Rows of one picture, and how well they agree: 1 for the same bytes."""

    rows: pd.DataFrame
    agreement: float = 1.0

    def split_by(self, columns: list[str]) -> "list[Copies]":
        """Return those of each value of these columns."""
        return [Copies(rows, self.agreement) for _, rows in self.rows.groupby(columns, sort=True)]

    def differ_in(self, column: str) -> bool:
        return bool(self.rows[column].nunique() > 1)


def duplicate_in_split(exact: list[Copies]) -> Finding:
    groups = [part for same in exact for part in same.split_by(["label", "split"]) if len(part.rows) > 1]
    return _of(groups, "the same picture more than once in a split", "No split holds the same picture twice.", _again)


def duplicate_across_splits(exact: list[Copies]) -> Finding:
    groups = [same for same in exact if same.differ_in("split")]
    return _of(groups, "the same picture in two splits", "No picture is in two splits.", _learnt)


def label_conflict(exact: list[Copies]) -> Finding:
    groups = [same for same in exact if same.differ_in("label")]
    return _of(groups, "the same picture under two names", "No picture is there under two names.", _contradicted)


def near_duplicate_in_split(alike: list[Copies]) -> Finding:
    groups = [part for group in alike for part in group.split_by(["label", "split"]) if part.differ_in("sha256")]
    otherwise = "No split holds nearly the same picture twice."
    return _of(groups, "nearly the same picture twice in a split", otherwise, _again)


def near_duplicate_across_splits(alike: list[Copies]) -> Finding:
    groups = [group for group in alike if group.differ_in("split")]
    return _of(groups, "nearly the same picture in two splits", "No two splits hold nearly the same picture.", _learnt)


def near_label_conflict(alike: list[Copies]) -> Finding:
    groups = [group for group in alike if group.differ_in("label")]
    otherwise = "No two names share nearly the same picture."
    return _of(groups, "nearly the same picture under two names", otherwise, _contradicted)


CopyCheck = Callable[[list[Copies]], Finding]

COPY_CHECKS: dict[str, CopyCheck] = {
    "duplicate_in_split": duplicate_in_split,
    "duplicate_across_splits": duplicate_across_splits,
    "label_conflict": label_conflict,
}

NEAR_COPY_CHECKS: dict[str, CopyCheck] = {
    "near_duplicate_in_split": near_duplicate_in_split,
    "near_duplicate_across_splits": near_duplicate_across_splits,
    "near_label_conflict": near_label_conflict,
}


def exact_copies(table: PictureTable) -> list[Copies]:
    """Return the readable pictures whose bytes are there more than once."""
    frame = table.readable
    copied = frame[frame["sha256"].duplicated(keep=False)]
    return [Copies(same) for _, same in copied.groupby("sha256", sort=False)]


def near_copies(table: PictureTable, look: Look, *, turned: bool = False) -> list[Copies]:
    """Return groups of rows that look alike, each with at least two different files, and all copies of those.

    `look` gives a picture's pixels by its row in the table; with `turned`, mirror images and quarter turns count.
    """
    frame = table.readable
    different = frame.drop_duplicates("sha256")
    rows = list(different.index)
    assert table.outlines is not None
    outlines = table.outlines if len(rows) == len(table) else table.outlines[rows]
    alike = near_duplicates(outlines, lambda index: look(rows[index]), turned=turned)
    digests = different["sha256"].to_numpy()
    group_of = {digest: number for number, one in enumerate(alike) for digest in digests[one.members]}
    parts = frame.groupby(frame["sha256"].map(group_of), sort=True)  # what is in no group is in no part
    return [
        Copies(part, min(one.agreement, 0.99))  # 1: the same bytes
        for one, (_, part) in zip(alike, parts, strict=True)
    ]


def _of(
    groups: Iterable[Copies],
    what: str,
    otherwise: str,
    leaving: Callable[[pd.DataFrame], pd.DataFrame],
) -> Finding:
    found = [(sorted(group.rows["id"]), group.agreement, group.rows) for group in groups]
    found.sort(key=lambda one: one[0])
    if not found:
        return nothing(otherwise)
    named = [names for names, _, _ in found]
    pictures = sorted({name for names in named for name in names})
    copy_of: dict[str, str] = {}
    for _, _, rows in found:
        copy_of |= _named_for(rows, leaving(rows))
    sentence = f"{counted(len(found), 'group', 'groups')} of {what}: {some(named[0])}."
    agreements = [agreement for _, agreement, _ in found]
    return Finding(
        len(found),
        sentence,
        pictures=pictures,
        groups=named,
        agreements=agreements,
        copy_of=copy_of,
        to_quarantine=sorted(copy_of),
    )


def _named_for(rows: pd.DataFrame, leaving: pd.DataFrame) -> dict[str, str]:
    """Return for each that leaves the copy it leaves for: one that stays, or else one of another name."""
    stays = sorted(set(rows["id"]) - set(leaving["id"]))
    if stays:
        return dict.fromkeys(leaving["id"], stays[0])
    first = rows.sort_values("id").drop_duplicates("label")
    return {
        name: first.loc[first["label"] != label, "id"].iloc[0]
        for name, label in zip(leaving["id"], leaving["label"], strict=True)
    }


def _again(group: pd.DataFrame) -> pd.DataFrame:
    """Return all copies but one."""
    return group.sort_values("id").iloc[1:]


def _learnt(group: pd.DataFrame) -> pd.DataFrame:
    """Return the copies outside the split that is learnt from least."""
    leaving: pd.DataFrame = group[group["split"] != max(group["split"], key=LAST_TO_LEAVE.index)]
    return leaving


def _contradicted(group: pd.DataFrame) -> pd.DataFrame:
    """Return the copies whose names contradict each other; those in test stay unless they do so among themselves."""
    test = group["split"] == "test"
    return group if group.loc[test, "label"].nunique() > 1 else group[~test]
