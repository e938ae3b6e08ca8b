"""Lightning gets the pictures as they are served, or as other views of them."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from imago.data.transforms import Preprocessing, decode, preprocess
from imago.errors import DataRefused
from imago.serving.runtime import Prediction, Runtime
from imago.training.augment import Augmentation
from imago.training.datamodule import DecodedPictures, EpochOrder, EvenBatches, PictureDataModule, View, shrink
from tests.packages import make_package, picture_bytes
from tests.unit.training.moths import SIZE, picture_rows, small_moths

PREPROCESSING = Preprocessing(image_size=SIZE, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))
MOTHS = small_moths()
PICTURES = DecodedPictures(MOTHS, PREPROCESSING, square=True)


def _data(*, seed: int = 0, sizes: tuple[int, ...] = (SIZE,), how: Augmentation | None = None) -> PictureDataModule:
    return PictureDataModule(MOTHS, MOTHS.classes, PREPROCESSING, batch_size=8, sizes=sizes, how=how, seed=seed)


def _first(data: PictureDataModule, epoch: int = 0) -> torch.Tensor:
    loader = data.train_dataloader()
    assert isinstance(loader.batch_sampler, EvenBatches)
    loader.batch_sampler.sampler.set_epoch(epoch)  # as Lightning does
    images: torch.Tensor = next(iter(loader))[0]
    return images


def test_validation_pictures_are_those_of_the_endpoint_to_the_bit() -> None:
    part = MOTHS.split("val")
    expected = np.stack([preprocess(decode(part.image(index)), PREPROCESSING) for index in range(len(part))])
    batches = list(_data().val_dataloader())
    assert np.array_equal(torch.cat([images for images, _ in batches]).numpy(), expected)
    assert [MOTHS.classes[int(label)] for _, labels in batches for label in labels] == part.labels


def test_large_photographs_are_decoded_smaller_for_training_as_at_the_endpoint_to_the_bit(tmp_path: Path) -> None:
    runtime = Runtime(make_package(tmp_path / "colours", image_size=SIZE, scaled_decoding=True))
    noise = np.random.default_rng(0).integers(0, 256, (5 * SIZE, 4 * SIZE, 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(noise).save(content, "JPEG")
    pictures = DecodedPictures(
        picture_rows(("val/a/1.jpg", content.getvalue(), "a", "val")), runtime.spec.preprocessing, square=True
    )
    seen = View(pictures, [0], runtime.spec.preprocessing)[0][0]
    assert np.array_equal(seen, runtime.preprocess(content.getvalue()))
    whole = runtime.spec.preprocessing.model_copy(update={"scaled_decoding": False})
    assert not np.array_equal(seen, preprocess(decode(content.getvalue()), whole))
    (answer,) = runtime.predict([content.getvalue()])
    assert isinstance(answer, Prediction)
    assert (answer.width, answer.height) == (4 * SIZE, 5 * SIZE)


def test_views_differ_from_epoch_to_epoch_and_repeat_from_the_seed() -> None:
    one, same, other = _data(how=Augmentation()), _data(how=Augmentation()), _data(how=Augmentation(), seed=1)
    assert torch.equal(_first(one), _first(same))
    assert not torch.equal(_first(one), _first(one, epoch=1))
    assert not torch.equal(_first(one), _first(other))


def test_each_epoch_has_its_size_and_the_last_goes_on() -> None:
    data = _data(how=Augmentation(), sizes=(16, 24))
    assert [_first(data, epoch).shape[-1] for epoch in (0, 1, 2)] == [16, 24, 24]


def test_an_epoch_shows_every_picture_once() -> None:
    data = _data()
    labels = torch.cat([labels for _, labels in data.train_dataloader()])
    assert torch.bincount(labels).tolist() == [12, 12]
    data.batch_size = 10
    assert [len(labels) for _, labels in data.train_dataloader()] == [8, 8, 8]
    data.batch_size = 100
    assert [len(labels) for _, labels in data.train_dataloader()] == [24]


def test_pictures_beyond_the_memory_allowed_are_the_same() -> None:
    whole = DecodedPictures(MOTHS, PREPROCESSING, square=True)
    none = DecodedPictures(MOTHS, PREPROCESSING, square=True, cache_bytes=0)
    assert all(np.array_equal(whole[index], none[index]) for index in range(len(MOTHS)))


def test_wide_pictures_take_no_more_memory_than_is_allowed() -> None:
    wide = [(f"train/a/{n}.png", picture_bytes("red", size=(400, 20)), "a", "train") for n in range(5)]
    pictures = DecodedPictures(picture_rows(*wide), PREPROCESSING, square=False, cache_bytes=3 * 400 * 20 * 3 + 1)
    kept = [picture.nbytes for picture in pictures._kept]
    assert kept == [400 * 20 * 3] * 3
    assert sum(kept) == pictures.kept_bytes
    assert [pictures[index].shape for index in range(5)] == [(20, 400, 3)] * 5


def test_both_splits_share_the_memory_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    one = SIZE * SIZE * 3
    monkeypatch.setattr("imago.training.datamodule.CACHE_BYTES", 12 * one)
    data = _data()
    assert len(data.val_pictures) == 8
    assert (data.val_pictures.kept_bytes, data.train_pictures.kept_bytes) == (8 * one, 4 * one)


def test_large_pictures_are_kept_a_little_larger_than_they_are_seen() -> None:
    assert shrink(np.zeros((400, 600, 3), dtype=np.uint8), 40).shape == (40, 60, 3)
    assert shrink(np.zeros((20, 600, 3), dtype=np.uint8), 40).shape == (20, 600, 3)


def test_a_picture_that_cannot_be_decoded_is_refused_by_name() -> None:
    good = picture_bytes("red")
    rows = [
        ("train/a/1.jpg", b"text", "a", "train"),
        ("train/b/1.png", good, "b", "train"),
        ("val/b/1.png", good, "b", "val"),
    ]
    with pytest.raises(DataRefused, match=r"^train/a/1\.jpg cannot be trained on: .*`data check`"):
        PictureDataModule(picture_rows(*rows), ("a", "b"), PREPROCESSING, batch_size=2, sizes=(SIZE,), how=None, seed=0)


@given(pictures=st.integers(3, 300), batch_size=st.integers(1, 64), world=st.integers(1, 3))
def test_every_picture_is_in_one_batch_of_an_epoch_and_batches_are_alike(
    pictures: int, batch_size: int, world: int
) -> None:
    view = View(PICTURES, [0] * pictures, PREPROCESSING, seed=3)
    drawn: list[int] = []
    for rank in range(world):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("imago.training.datamodule.placed", lambda rank=rank: (rank, world))
            batches = EvenBatches(EpochOrder(view), batch_size)
            sizes = [len(batch) for batch in batches]
            drawn += [index for batch in batches for index in batch]
            assert len(sizes) == len(batches)
        assert sum(sizes) == pictures // world
        assert max(sizes, default=0) <= max(batch_size, 3 if batch_size == 2 else 1)
        assert min(sizes, default=2) >= min(2, batch_size, pictures // world)
        assert max(sizes, default=0) - min(sizes, default=0) <= 1
    assert len(set(drawn)) == len(drawn) == pictures // world * world


def test_validation_pictures_of_classes_that_are_not_trained_are_left_out() -> None:
    data = PictureDataModule(MOTHS, MOTHS.classes[:1], PREPROCESSING, batch_size=4, sizes=(SIZE,), how=None, seed=0)
    assert data.val_labels == [0] * 4


def test_a_data_set_without_validation_pictures_is_refused() -> None:
    row = ("train/a/1.png", picture_bytes("red"), "a", "train")
    with pytest.raises(DataRefused, match="no val pictures"):
        PictureDataModule(picture_rows(row), ("a",), PREPROCESSING, batch_size=2, sizes=(SIZE,), how=None, seed=0)


def test_of_two_processes_each_sees_half_of_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    data = _data()
    seen, held_out = [], []
    for rank in range(2):
        monkeypatch.setattr("imago.training.datamodule.placed", lambda rank=rank: (rank, 2))
        batches, share = data.train_dataloader().batch_sampler, data.val_dataloader().sampler
        assert isinstance(batches, EvenBatches)
        sampler = batches.sampler
        assert len(list(sampler)) == len(sampler) == len(data.train_labels) // 2
        seen += list(sampler)
        held_out += list(share)
    assert sorted(seen) == list(range(len(data.train_labels)))
    assert sorted(held_out) == list(range(len(data.val_labels)))
