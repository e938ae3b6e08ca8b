import datasets
import pytest
from PIL import Image

from imago.config import DataConfig
from imago.data.sources import load_dataset
from imago.errors import ConfigError, DataRefused
from tests.unit.data.pictures import encode, moth

CLASSES = ["luna", "atlas"]


def make(count, *, first=0, label=None):
    """A data set of so many encoded pictures whose class alternates."""
    data = {
        "image": [
            {"bytes": encode(moth(0, first + number, 32), "PNG"), "path": f"{number}.png"} for number in range(count)
        ],
        "label": [number % 2 for number in range(count)],
    }
    features = datasets.Features({"image": datasets.Image(), "label": label or datasets.ClassLabel(names=CLASSES)})
    return datasets.Dataset.from_dict(data, features=features)


def load(source):
    return load_dataset(DataConfig(source=str(source)), 0)


def test_saved_splits_are_read_with_their_names_and_bytes(tmp_path):
    parts = {"train": make(6), "validation": make(2, first=10), "test": make(2, first=20)}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "saved")
    dataset = load(tmp_path / "saved")
    assert dataset.counts() == {name: {"train": 3, "val": 1, "test": 1} for name in sorted(CLASSES)}
    place = dataset.ids.index("train/atlas/000001.png")
    assert (
        dataset.image(place) == parts["train"].cast_column("image", datasets.Image(decode=False))[1]["image"]["bytes"]
    )
    assert "saved Hugging Face data set" in dataset.origin


def test_saved_data_set_without_splits_gets_them(tmp_path):
    make(40).save_to_disk(tmp_path / "saved")
    assert load(tmp_path / "saved").counts()["luna"] == {"train": 16, "val": 2, "test": 2}


def test_shuffled_data_set_keeps_pictures_and_labels_together(tmp_path):
    make(20).shuffle(seed=0).save_to_disk(tmp_path / "shuffled")
    make(20).save_to_disk(tmp_path / "straight")
    pairs = [set(zip(found.digests, found.labels, strict=True)) for found in map(load, tmp_path.iterdir())]
    assert pairs[0] == pairs[1]


def test_labels_without_names_are_their_numbers_and_unlabelled_rows_are_left_out(tmp_path):
    data = make(8, label=datasets.Value("int64"))
    data = datasets.concatenate_datasets([data, data.select([0]).map(lambda _: {"label": None})])
    data.save_to_disk(tmp_path / "saved")
    dataset = load(tmp_path / "saved")
    assert (dataset.classes, len(dataset)) == (("0", "1"), 8)


def test_pictures_that_lie_as_files_beside_it_are_read(tmp_path):
    paths = []
    for number in range(4):
        paths.append(str(tmp_path / f"{number}.png"))
        Image.fromarray(moth(0, number, 32)).save(paths[-1])
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=CLASSES)})
    data = datasets.Dataset.from_dict({"image": paths, "label": [0, 1, 0, 1]}, features=features)
    data.save_to_disk(tmp_path / "saved")
    assert all(load(tmp_path / "saved").image(index)[1:4] == b"PNG" for index in range(4))


def test_data_set_of_the_hub_is_read_by_its_name(monkeypatch):
    parts = datasets.DatasetDict({"train": make(20), "unsupervised": make(4, first=40)})
    asked = []
    monkeypatch.setattr(datasets, "load_dataset", lambda name: asked.append(name) or parts)
    dataset = load("hf:owner/moths")
    assert asked == ["owner/moths"]
    assert dataset.counts()["luna"] == {"train": 8, "val": 1, "test": 1}
    assert "Ignored its splits unsupervised" in dataset.origin


def test_data_set_that_cannot_be_loaded_is_one_line(monkeypatch):
    def refuse(name):
        raise ConnectionError(f"Couldn't reach {name}\non the Hub")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(ConfigError, match=r"'owner/moths' cannot be loaded \(Couldn't reach owner/moths on the Hub\)"):
        load("hf:owner/moths")


def test_data_set_without_pictures_is_refused(tmp_path):
    datasets.Dataset.from_dict({"text": ["a"], "label": [0]}).save_to_disk(tmp_path / "saved")
    with pytest.raises(ConfigError, match="no picture column: its columns are text, label"):
        load(tmp_path / "saved")


def test_splits_without_train_are_refused(tmp_path):
    datasets.DatasetDict({"test": make(2), "validation": make(2)}).save_to_disk(tmp_path / "saved")
    with pytest.raises(DataRefused, match="none of them is train"):
        load(tmp_path / "saved")


def test_broken_saved_data_set_is_refused(tmp_path):
    make(2).save_to_disk(tmp_path / "saved")
    next((tmp_path / "saved").glob("*.arrow")).write_bytes(b"broken")
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "saved")


def test_a_hubs_parquet_file_gives_its_pictures_and_gets_splits(tmp_path):
    make(40).to_parquet(tmp_path / "moths.parquet")
    dataset = load(tmp_path / "moths.parquet")
    assert dataset.counts() == {name: {"train": 16, "val": 2, "test": 2} for name in sorted(CLASSES)}
    assert "Parquet file of pictures" in dataset.origin


def test_a_parquet_of_pictures_with_an_unknown_split_is_refused(tmp_path):
    data = make(4).add_column("split", ["train", "train", "dev", "test"])
    data.to_parquet(tmp_path / "moths.parquet")
    with pytest.raises(ConfigError, match=r"split 'dev' in .* is none of train"):
        load(tmp_path / "moths.parquet")
