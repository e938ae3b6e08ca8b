"""Gives Lightning its pictures: decoded once where they fit in memory, a new view of each in every epoch."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset, Sampler

from imago.data.dataset import ImageDataset, Split
from imago.data.transforms import RGB, Preprocessing, UnreadablePicture, decode, normalise, resize_to_square
from imago.errors import DataRefused
from imago.training.augment import Augmentation, augment, erase
from imago.training.devices import placed
from imago.training.recipe import even_parts

Batch = tuple[torch.Tensor, torch.Tensor]
"""Pictures (N, 3, size, size) float32, and their classes' indices (N,) int64."""

CACHE_BYTES = 1 << 27  # of both splits together; a step takes many times as long as decoding its pictures again
_AT_ONCE = 64  # pictures that are decoded before it is seen whether they fit
_MARGIN = 1.25  # a decoded picture is kept this much larger than the model sees it, for crops to be sharp


class DecodedPictures:
    """The pictures of a split, decoded: the first, as many as `cache_bytes` hold, are kept; others decoded again."""

    def __init__(
        self, dataset: ImageDataset, preprocessing: Preprocessing, *, square: bool, cache_bytes: int = CACHE_BYTES
    ) -> None:
        self._dataset = dataset
        self._size = preprocessing.image_size
        self._scaled = preprocessing.scaled_decoding
        self._square = square
        self.kept_bytes = 0
        self._kept: list[RGB] = []
        with ThreadPoolExecutor() as pool:
            for start in range(0, len(dataset), _AT_ONCE):
                for picture in pool.map(self._decode, range(start, min(start + _AT_ONCE, len(dataset)))):
                    if self.kept_bytes + picture.nbytes > cache_bytes:
                        return
                    self.kept_bytes += picture.nbytes
                    self._kept.append(picture)

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> RGB:
        return self._kept[index] if index < len(self._kept) else self._decode(index)

    def _kept_side(self) -> int:
        return self._size if self._square else round(self._size * _MARGIN)

    def _decode(self, index: int) -> RGB:
        try:
            picture = decode(self._dataset.image(index), side=self._kept_side() if self._scaled else 0)
        except UnreadablePicture as error:
            raise DataRefused(
                f"{self._dataset.ids[index]} cannot be trained on: {error}. `data check` puts such pictures aside."
            ) from error
        return resize_to_square(picture, self._size) if self._square else shrink(picture, self._kept_side())


def shrink(picture: RGB, side: int) -> RGB:
    """Scale a picture down until its shorter side has at most `side` pixels."""
    height, width = picture.shape[:2]
    scale = side / min(height, width)
    if scale >= 1:
        return picture
    return np.asarray(Image.fromarray(picture).resize((round(width * scale), round(height * scale)), reducing_gap=3.0))


@dataclass
class View(Dataset[tuple[npt.NDArray[np.float32], int]]):
    """Pictures as a model's inputs, with labels; augmented where `how` says so, differently in each epoch.

    `sizes` gives the side in pixels of each epoch, where it is not that of the preprocessing.
    """

    pictures: DecodedPictures
    labels: Sequence[int]
    preprocessing: Preprocessing
    sizes: Sequence[int] = ()
    how: Augmentation | None = None
    seed: int = 0
    epoch: int = 0

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[npt.NDArray[np.float32], int]:
        picture, size = self.pictures[index], self.preprocessing.image_size
        if self.sizes:
            size = self.sizes[min(self.epoch, len(self.sizes) - 1)]
        if self.how is None:
            return normalise(resize_to_square(picture, size), self.preprocessing), self.labels[index]
        rng = np.random.default_rng([self.seed, self.epoch, index])
        inputs = normalise(augment(picture, size, rng, self.how), self.preprocessing)
        return erase(inputs, rng, self.how) if self.how.erasing else inputs, self.labels[index]


class EpochOrder(Sampler[int]):
    """The order of each epoch, from the seed; Lightning says which epoch it is, also where it goes on after some.

    Processes that train together have the same number of pictures; what is over has its turn in another epoch.
    """

    def __init__(self, view: View, *, balanced: bool = False) -> None:
        self._view = view
        self._balanced = balanced

    def __len__(self) -> int:
        return len(self._view) // placed()[1]

    def set_epoch(self, epoch: int) -> None:
        self._view.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        rank, world = placed()
        indices = self._order()
        return iter(indices[rank : len(indices) - len(indices) % world : world])

    def _order(self) -> list[int]:
        order = torch.Generator().manual_seed(self._view.seed * 100_003 + self._view.epoch)
        if self._balanced:  # as many of each class as of any other, the rare ones again and again
            labels = torch.tensor(self._view.labels)
            chances = 1.0 / torch.bincount(labels).float()[labels]
            return [int(index) for index in torch.multinomial(chances, len(labels), True, generator=order)]
        return [int(index) for index in torch.randperm(len(self._view), generator=order)]


class EvenBatches(Sampler[list[int]]):
    """The batches of an epoch, whose sizes differ by one at most: each picture once, and none by itself."""

    def __init__(self, sampler: EpochOrder, batch_size: int) -> None:
        self.sampler = sampler  # by this name Lightning finds it, to say which epoch it is
        self._batch_size = batch_size

    def __len__(self) -> int:
        return even_parts(len(self.sampler), self._batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        for batch in np.array_split(list(self.sampler), len(self)):
            yield batch.tolist()


class Share(Sampler[int]):
    """The pictures that fall to this process, each to one."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return len(self._indices())

    def __iter__(self) -> Iterator[int]:
        return iter(self._indices())

    def _indices(self) -> range:
        rank, world = placed()
        return range(rank, self._count, world)


def collate(rows: Sequence[tuple[npt.NDArray[np.float32], int]]) -> Batch:
    """Stack rows into a batch."""
    images, labels = zip(*rows, strict=True)
    return torch.from_numpy(np.stack(images)), torch.tensor(labels, dtype=torch.int64)


class PictureDataModule(LightningDataModule):
    """The training and validation pictures of a data set.

    `sizes` gives the side in pixels that each epoch trains at; validation is always at the model's own. What is not
    trained on comes `at_once` pictures at a time. A training that goes on has its own `first_epoch`, for Lightning says
    which it is only after the processes that load its pictures have begun.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        classes: Sequence[str],
        preprocessing: Preprocessing,
        *,
        batch_size: int,
        sizes: Sequence[int],
        how: Augmentation | None,
        seed: int,
        at_once: int | None = None,
        num_workers: int = 0,
        balanced: bool = False,
        first_epoch: int = 0,
    ) -> None:
        super().__init__()
        self.preprocessing = preprocessing
        self.batch_size = batch_size
        self.at_once = at_once or batch_size
        self.sizes = tuple(sizes)
        self.how = how
        self.seed = seed
        self.num_workers = num_workers
        self.balanced = balanced
        self.first_epoch = first_epoch
        self.contents = [(part, dataset.split(part).digests, dataset.split(part).labels) for part in ("train", "val")]
        known = set(classes)
        rows = zip(dataset.split("train").ids, dataset.split("train").labels, strict=True)
        self.train_ids = tuple(name for name, label in rows if label in known)
        self.val_pictures, self.val_labels = self._read(dataset, "val", classes, square=True, cache_bytes=CACHE_BYTES)
        left = CACHE_BYTES - self.val_pictures.kept_bytes
        self.train_pictures, self.train_labels = self._read(
            dataset, "train", classes, square=how is None, cache_bytes=left
        )

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return the training batches: shuffled, at the epoch's size."""
        seed, epoch = self.seed, self.first_epoch
        view = View(self.train_pictures, self.train_labels, self.preprocessing, self.sizes, self.how, seed, epoch)
        batches = EvenBatches(EpochOrder(view, balanced=self.balanced), self.batch_size)
        return self._loader(view, batch_sampler=batches)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Return the validation pictures as the endpoint will see them."""
        view = View(self.val_pictures, self.val_labels, self.preprocessing)
        return self._loader(view, batch_size=self.at_once, sampler=Share(len(view)))

    def plain_train_dataloader(self) -> DataLoader[Batch]:
        """Return the training pictures in their order, whole."""
        return self._loader(View(self.train_pictures, self.train_labels, self.preprocessing), batch_size=self.at_once)

    def _loader(self, view: View, **drawn: Any) -> DataLoader[Batch]:
        return DataLoader(view, collate_fn=collate, num_workers=self.num_workers, **drawn)  # type: ignore[arg-type]

    def _read(
        self, dataset: ImageDataset, split: Split, classes: Sequence[str], *, square: bool, cache_bytes: int
    ) -> tuple[DecodedPictures, list[int]]:
        index = {label: position for position, label in enumerate(classes)}
        part = dataset.split(split)
        part = part.without([name for name, label in zip(part.ids, part.labels, strict=True) if label not in index])
        if not len(part):
            raise DataRefused(f"There are no {split} pictures of any class to train with: see `data check`.")
        pictures = DecodedPictures(part, self.preprocessing, square=square, cache_bytes=cache_bytes)
        return pictures, [index[label] for label in part.labels]
