import os

import pytest

from imago.config import Config, DataConfig, SyntheticConfig, with_source
from imago.data import folders
from imago.data.dataset import ImageDataset
from imago.data.sources import load_dataset, source_state, spelt_out
from imago.data.synthetic import SPECIES
from imago.errors import ConfigError, DataRefused
from tests.unit.data.pictures import encode, moth, write_classes

DEFAULTS = Config()
SMALL = SyntheticConfig(species=3, per_class_train=6, per_class_val=3, per_class_test=2)


def load(source, seed=0, **keys) -> ImageDataset:
    return load_dataset(DataConfig(source=str(source), **keys), seed)


def split_of(dataset):
    return dict(zip(dataset.ids, dataset.splits, strict=True))


def test_no_source_gives_the_synthetic_moths():
    dataset = load_dataset(DataConfig(image_size=32, synthetic=SMALL), 0)
    assert dataset.counts() == {name: {"train": 6, "val": 3, "test": 2} for name in sorted(SPECIES[:3])}
    assert dataset.origin.startswith("No source was given")


def test_subset_of_classes_and_limit_apply_to_the_synthetic_moths():
    config = DataConfig(image_size=32, synthetic=SMALL, classes=SPECIES[:2], limit_per_class=2)
    assert load_dataset(config, 0).counts() == {name: {"train": 2, "val": 2, "test": 2} for name in sorted(SPECIES[:2])}


def test_limit_is_repeatable_from_the_seed_and_keeps_the_splits_of_the_whole(tmp_path):
    write_classes(tmp_path, {"a": 30, "b": 30})
    limited, again = load(tmp_path, limit_per_class=4), load(tmp_path, limit_per_class=4)
    assert limited.ids == again.ids
    assert limited.counts()["a"] == {"train": 4, "val": 3, "test": 3}
    assert split_of(limited).items() < split_of(load(tmp_path)).items()
    assert load(tmp_path, seed=1, limit_per_class=4).ids != limited.ids


def test_a_subset_is_a_share_of_each_class_and_split_and_grows_with_its_share(tmp_path):
    write_classes(tmp_path, {"a": 40, "b": 20, "c": 10})
    half, more = load(tmp_path, subset=0.5), load(tmp_path, subset=0.75)
    assert half.counts() == {
        "a": {"train": 16, "val": 2, "test": 2},
        "b": {"train": 8, "val": 1, "test": 1},
        "c": {"train": 4, "val": 1, "test": 1},
    }
    assert set(half.ids) < set(more.ids)
    assert load(tmp_path, subset=0.5).ids == half.ids
    assert len(load(tmp_path, subset=0.5, limit_per_class=3).split("train")) == 9


def test_unknown_class_is_refused_with_the_nearest_name(tmp_path):
    write_classes(tmp_path, {"ATLAS MOTH": 3, "LUNA MOTH": 3})
    with pytest.raises(ConfigError, match=r"no class 'LUNA MOT'.*'LUNA MOTH'"):
        load(tmp_path, classes=("LUNA MOT", "ATLAS MOTH"))


def test_configuration_with_one_class_is_refused(tmp_path):
    write_classes(tmp_path, {"a": 3, "b": 3})
    with pytest.raises(ConfigError, match="fewer than two classes"):
        load(tmp_path, classes=("a", "a"))


def test_missing_folder_is_refused_with_the_nearest_name(tmp_path):
    (tmp_path / "moths").mkdir()
    for ask in (load, source_state):
        with pytest.raises(ConfigError, match=r"no file or folder '.*mots'.*'moths'"):
            ask(str(tmp_path / "mots"))


@pytest.mark.parametrize("source", ["", "a" * 5000, "~nobody-here/x", "moths\0"])
def test_source_that_no_file_can_have_is_refused(source):
    with pytest.raises(ConfigError, match="no file or folder"):
        load(source)


def test_empty_folder_is_refused(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(DataRefused, match="no pictures"):
        load(tmp_path)


def test_file_that_is_no_manifest_is_refused(tmp_path):
    (tmp_path / "moths.zip").write_bytes(b"PK")
    with pytest.raises(ConfigError, match=r"neither a folder nor a manifest"):
        load(tmp_path / "moths.zip")


def test_missing_splits_are_made_from_all_pictures(tmp_path):
    write_classes(tmp_path, {"a": 20, "b": 20})
    dataset = load(tmp_path)
    assert dataset.counts() == {name: {"train": 16, "val": 2, "test": 2} for name in ("a", "b")}
    assert "splits were made" in dataset.origin
    assert split_of(dataset) == split_of(load(tmp_path))
    assert split_of(dataset) != split_of(load(tmp_path, seed=1))


def test_copies_stay_in_one_split_where_splits_are_made(tmp_path):
    write_classes(tmp_path, {"a": 0, "b": 12})
    for number in range(12):
        for copy, quality in enumerate((90, 70)):
            path = tmp_path / "a" / f"{number} {copy}.jpg"
            path.write_bytes(encode(moth(0, number), quality=quality))
    splits = split_of(load(tmp_path))
    assert {"train", "val", "test"} == {split for name, split in splits.items() if name.startswith("a/")}
    assert all(splits[f"a/{number} 0.jpg"] == splits[f"a/{number} 1.jpg"] for number in range(12))


def test_missing_test_split_is_taken_from_train_and_val_stays(tmp_path):
    write_classes(tmp_path, {"train/a": 20, "train/b": 20, "val/a": 3, "val/b": 3})
    dataset = load(tmp_path)
    assert dataset.counts() == {name: {"train": 18, "val": 3, "test": 2} for name in ("a", "b")}
    assert {name for name, split in split_of(dataset).items() if split == "val"} == {
        f"val/{label}/{number}.jpg" for label in "ab" for number in range(3)
    }
    assert "test was taken from train" in dataset.origin


def test_file_address_is_read_as_the_folder(tmp_path):
    write_classes(tmp_path, {"a": 4, "b": 4})
    assert load(f"file://{tmp_path}").fingerprint == load(tmp_path).fingerprint
    assert source_state(f"file://{tmp_path}") == source_state(str(tmp_path))


def test_thousands_of_files_are_read_within_seconds(tmp_path):
    data = encode(moth(0, 0, 32))
    for label in ("a", "b"):
        for split in ("train", "val", "test"):
            (tmp_path / split / label).mkdir(parents=True)
            for number in range(500):
                (tmp_path / split / label / f"{number}.jpg").write_bytes(data + number.to_bytes(2, "big"))
    start = os.times()
    assert len(load(tmp_path)) == 3000
    end = os.times()
    assert (end.user + end.system) - (start.user + start.system) < 3


def test_a_bare_name_is_a_hub_where_no_folder_can_have_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    assert spelt_out("owner/moths") == "hf:owner/moths"
    assert source_state("owner/moths") == "hf:owner/moths"
    for path in ("data/moths", "lists/moths.csv", "moths", "./owner/moths", "owner/moths/train", "hf:owner/moths"):
        assert spelt_out(path) == path


def test_state_of_no_source_and_of_hubs_is_their_name():
    assert source_state(None) == "synthetic"
    assert source_state("hf:owner/moths") == "hf:owner/moths"


def test_state_changes_with_what_the_folder_holds_and_only_then(tmp_path):
    write_classes(tmp_path, {"a": 2, "b": 2})
    before = source_state(str(tmp_path))
    assert source_state(str(tmp_path)) == before
    os.utime(tmp_path / "a" / "0.jpg", ns=(1, 1))
    touched = source_state(str(tmp_path))
    (tmp_path / "a" / "0.jpg").rename(tmp_path / "b" / "9.jpg")
    assert len({before, touched, source_state(str(tmp_path))}) == 3


def test_state_of_a_manifest_follows_it_and_its_files(tmp_path):
    write_classes(tmp_path, {"a": 1, "b": 1})
    manifest = tmp_path / "moths.csv"
    manifest.write_text("path,label\na/0.jpg,a\nb/0.jpg,b\ngone.jpg,b\n")
    before = source_state(str(manifest))
    (tmp_path / "beside.jpg").write_bytes(b"not named")
    assert source_state(str(manifest)) == before
    os.utime(tmp_path / "a" / "0.jpg", ns=(1, 1))
    touched = source_state(str(manifest))
    (tmp_path / "gone.jpg").write_bytes(b"back")
    assert len({before, touched, source_state(str(manifest))}) == 3


def test_unchanged_data_is_read_once(tmp_path, monkeypatch):
    monkeypatch.setenv("IMAGO_HOME", str(tmp_path / "home"))
    root = write_classes(tmp_path / "moths", {"a": 12, "b": 12})
    first = load(root)
    with monkeypatch.context() as closed:
        closed.setattr(folders, "read_file", lambda _: pytest.fail("read again"))
        again = load(root)
    assert list(again.batches()) == list(first.batches())
    assert again.origin == first.origin
    (root / "a" / "0.jpg").write_bytes((root / "b" / "1.jpg").read_bytes())
    changed = load(root)
    assert changed.fingerprint != first.fingerprint
    assert list(first.batches()) == list(again.batches())


def test_only_the_data_sets_used_last_are_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("IMAGO_HOME", str(tmp_path / "home"))
    root = write_classes(tmp_path / "moths", {"a": 12, "b": 12})
    sets = [load_dataset(DataConfig(source=str(root), limit_per_class=limit), 0) for limit in range(2, 9)]
    assert len(list((tmp_path / "home" / "datasets").iterdir())) == 4
    assert [len(dataset.image(0)) > 0 for dataset in sets] == [True] * 7


def test_a_subset_copies_no_picture_and_a_stored_one_is_linked(tmp_path, monkeypatch):
    monkeypatch.setenv("IMAGO_HOME", str(tmp_path / "home"))
    dataset = load(write_classes(tmp_path / "moths", {"a": 12, "b": 12}))
    train = dataset.split("train").without(dataset.ids[:1])
    assert train.images is dataset.images
    dataset.write(tmp_path / "all.arrow")
    assert (tmp_path / "all.arrow").samefile(dataset.file)
    train.write(tmp_path / "train.arrow")
    assert list(ImageDataset.read(tmp_path / "train.arrow").batches()) == list(train.batches())


@pytest.mark.parametrize("damage", [b"", b"ARROW1 and then nothing"])
def test_what_was_kept_and_is_damaged_is_read_again(tmp_path, monkeypatch, damage):
    monkeypatch.setenv("IMAGO_HOME", str(tmp_path / "home"))
    root = write_classes(tmp_path / "moths", {"a": 12, "b": 12})
    first = load(root)
    first.file.unlink()  # it is mapped
    first.file.write_bytes(damage)
    assert load(root).fingerprint == first.fingerprint


def test_a_folder_of_any_name_is_read(tmp_path):
    write_classes(tmp_path / "moths 🦋 \n'\"", {"a": 12, "b": 12})
    config = with_source(DEFAULTS, str(tmp_path / "moths 🦋 \n'\""))
    assert len(load_dataset(config.data, 0)) == 24
    with pytest.raises(ConfigError, match=r"'caf\\xe9' is not UTF-8"):
        with_source(DEFAULTS, os.fsdecode(b"caf\xe9"))
