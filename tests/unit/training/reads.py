"""Which pictures each process of a training draws, written down as it draws them."""

import os
from collections import defaultdict
from pathlib import Path

import pytest

from imago.training.datamodule import View

Reads = dict[int, list[int]]
"""The pictures that were drawn, in their order, by the process that drew them."""


def written_to(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Have every process, those that a training forks too, add what it draws of a split to a file of its own."""
    folder.mkdir()
    draw = View.__getitem__

    def written(self: View, index: int) -> object:
        split = "val" if self.how is None else "train"
        with (folder / str(os.getpid())).open("a", encoding="utf-8") as file:
            file.write(f"{split} {self.epoch} {index}\n")
        return draw(self, index)

    patch.setattr(View, "__getitem__", written)


def read_from(folder: Path, split: str, epoch: int) -> Reads:
    """Return what was drawn of an augmented training split, or of the validation split, in an epoch."""
    reads: Reads = defaultdict(list)
    for file in folder.iterdir():
        for line in file.read_text(encoding="utf-8").splitlines():
            what, when, index = line.split()
            if (what, int(when)) == (split, epoch):
                reads[int(file.name)].append(int(index))
    return dict(reads)
