import numpy as np
import pytest

from imago.config import SyntheticConfig
from imago.data.dataset import ImageDataset
from imago.data.synthetic import SPECIES, draw_moth, synthetic_dataset, write_folder
from imago.data.transforms import decode
from imago.errors import ImagoError

SMALL = SyntheticConfig(species=3, per_class_train=4, per_class_val=2, per_class_test=1)


def test_dataset_has_the_configured_counts_and_ids():
    dataset = synthetic_dataset(SMALL, 48, seed=0)
    assert dataset.classes == tuple(sorted(SPECIES[:3]))
    assert dataset.counts() == {label: {"train": 4, "val": 2, "test": 1} for label in dataset.classes}
    assert f"train/{SPECIES[0]}/0001.jpg" in dataset.ids
    assert len(set(dataset.digests)) == len(dataset) == 21


def test_pictures_are_jpeg_files_of_the_size_asked_for():
    dataset = synthetic_dataset(SMALL, 48, seed=0)
    assert dataset.image(0)[:3] == b"\xff\xd8\xff"
    assert {decode(dataset.image(index)).shape for index in range(len(dataset))} == {(48, 48, 3)}


def test_same_seed_gives_same_bytes_and_another_seed_others():
    first, again, other = (synthetic_dataset(SMALL, 48, seed=seed) for seed in (0, 0, 1))
    assert first.fingerprint == again.fingerprint
    assert not set(first.digests) & set(other.digests)


def test_more_pictures_a_class_change_none_of_those_there():
    few = synthetic_dataset(SMALL, 48, seed=0)
    many = synthetic_dataset(SMALL.model_copy(update={"per_class_train": 6, "species": 4}), 48, seed=0)
    assert set(zip(few.ids, few.digests, strict=True)) < set(zip(many.ids, many.digests, strict=True))


def test_every_species_can_be_drawn_and_differs_from_the_others():
    drawn = [draw_moth(species, np.random.default_rng(0), 64) for species in range(len(SPECIES))]
    assert len(SPECIES) == len(set(SPECIES)) == SyntheticConfig.model_fields["species"].metadata[1].le
    assert {(picture.shape, picture.dtype) for picture in drawn} == {((64, 64, 3), np.dtype("uint8"))}
    for index, picture in enumerate(drawn):
        for other in drawn[:index]:
            assert np.abs(picture.astype(int) - other).mean() > 2


def test_mean_colour_does_not_tell_the_species_apart():
    dataset = synthetic_dataset(SyntheticConfig(per_class_train=30, per_class_val=1, per_class_test=15), 48, seed=0)
    means = np.array([decode(dataset.image(index)).mean(axis=(0, 1)) for index in range(len(dataset))])
    labels, splits = np.array(dataset.labels), np.array(dataset.splits)
    train, test = splits == "train", splits == "test"
    centroids = np.stack([means[train & (labels == label)].mean(axis=0) for label in dataset.classes])
    nearest = np.linalg.norm(means[test, None] - centroids, axis=2).argmin(axis=1)
    assert (np.array(dataset.classes)[nearest] == labels[test]).mean() < 0.6


def test_pictures_are_neither_dark_nor_bright_nor_flat():
    dataset = synthetic_dataset(SMALL, 64, seed=3)
    for index in range(len(dataset)):
        picture = decode(dataset.image(index)).astype(float)
        assert 50 < picture.mean() < 210
        assert picture.std() > 10


def test_written_folder_holds_the_same_bytes_by_split_and_class(tmp_path):
    dataset = synthetic_dataset(SMALL, 48, seed=0)
    write_folder(dataset, tmp_path)
    files = {str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*.jpg")}
    assert files == {identity: dataset.image(index) for index, identity in enumerate(dataset.ids)}


def test_two_pictures_that_would_share_a_file_are_refused(tmp_path):
    dataset = ImageDataset.from_rows(["x/1.jpg", "y/1.jpg"], [b"1", b"2"], ["a", "a"], ["train", "train"], origin="")
    with pytest.raises(ImagoError, match=r"both called 1\.jpg"):
        write_folder(dataset, tmp_path)


def test_class_that_leaves_the_folder_is_refused(tmp_path):
    dataset = ImageDataset.from_rows(["1.jpg"], [b"1"], ["../a"], ["train"], origin="")
    with pytest.raises(ImagoError, match="cannot be the name of a folder"):
        write_folder(dataset, tmp_path / "root")
    assert list(tmp_path.iterdir()) == []
