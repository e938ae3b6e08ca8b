import json
import os
import subprocess
import sys
import time

import datasets
import pytest
from PIL import Image

from imago.config import DataConfig
from imago.data.sources import load_dataset
from imago.errors import ConfigError, DataRefused
from imago.home import ROOT
from tests.unit.data import hubs
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
    assert "Left out 1 without a label" in dataset.origin


def test_pictures_that_lie_as_files_beside_it_are_read(tmp_path):
    paths = []
    for number in range(4):
        paths.append(str(tmp_path / f"{number}.png"))
        Image.fromarray(moth(0, number, 32)).save(paths[-1])
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=CLASSES)})
    data = datasets.Dataset.from_dict({"image": paths, "label": [0, 1, 0, 1]}, features=features)
    data.save_to_disk(tmp_path / "saved")
    assert all(load(tmp_path / "saved").image(index)[1:4] == b"PNG" for index in range(4))


def described(name, tmp_path, address):
    """What the command line says of a hub's data set; its clients read where the hub is when they are imported."""
    homes = {"HF_HOME": str(tmp_path / "hf"), "IMAGO_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, str(ROOT / "run.py"), "data", "describe", "--json", "--data", name]
    run = subprocess.run(
        command, env=os.environ | homes | {"HF_ENDPOINT": address}, capture_output=True, text=True, timeout=120
    )
    return run.returncode, json.loads(run.stdout)


def parquet(data, tmp_path):
    data.to_parquet(tmp_path / "train.parquet")
    return (tmp_path / "train.parquet").read_bytes()


def test_data_set_of_the_hub_is_read_by_its_name_and_from_the_cache_where_the_hub_is_gone(tmp_path):
    with hubs.hub("owner/moths", {"train.parquet": parquet(make(20), tmp_path)}) as address:
        code, online = described("hf:owner/moths", tmp_path, address)
        unknown = described("hf:owner/mohts", tmp_path, address)
    begun = time.monotonic()
    offline = described("owner/moths", tmp_path, address)
    absent = described("hf:owner/other", tmp_path, address)
    assert time.monotonic() - begun < 30  # where its client would try for 24 s, twice
    assert code == 0
    assert online["counts"]["luna"] == {"train": 8, "val": 1, "test": 1}
    assert "Hugging Face data set" in online["origin"]
    assert offline == (0, online)
    assert unknown[0] == absent[0] == 2
    assert "no such Hugging Face data set" in unknown[1]["error"]
    assert "'owner/other' cannot be loaded" in absent[1]["error"]


def test_no_private_file_is_read_for_a_data_set_from_elsewhere(tmp_path):
    private = tmp_path / "private.png"
    private.write_bytes(encode(moth(0, 0, 32), "PNG"))
    features = datasets.Features({"image": datasets.Image(decode=False), "label": datasets.Value("string")})
    rows = {"image": [{"bytes": None, "path": str(private)}] * 20, "label": ["a", "b"] * 10}
    evil = datasets.Dataset.from_dict(rows, features=features)
    with hubs.hub("owner/evil", {"train.parquet": parquet(evil, tmp_path)}) as address:
        code, told = described("hf:owner/evil", tmp_path, address)
    assert (code, told["unreadable"]) == (0, 20)
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "train.parquet").rename(inside / "train.parquet")
    dataset = load(inside / "train.parquet")
    assert {dataset.image(index) for index in range(20)} == {b""}


def test_ids_that_begin_anew_in_each_split_are_not_taken(tmp_path):
    parts = {name: make(6, first=10 * at) for at, name in enumerate(("train", "validation", "test"))}
    numbered = {name: part.add_column("id", [str(row) for row in range(6)]) for name, part in parts.items()}
    datasets.DatasetDict(numbered).save_to_disk(tmp_path / "saved")
    dataset = load(tmp_path / "saved")
    assert len(set(dataset.ids)) == 18


def test_the_split_column_counts_where_there_is_one_part_only(tmp_path):
    split = ["train"] * 8 + ["validation", "validation", "test", "test"]
    datasets.DatasetDict({"train": make(12).add_column("split", split)}).save_to_disk(tmp_path / "saved")
    dataset = load(tmp_path / "saved")
    assert dataset.counts()["luna"] == {"train": 4, "val": 1, "test": 1}
    assert "split column" in dataset.origin


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
