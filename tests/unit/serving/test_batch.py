"""Every file of a folder becomes one row, whatever it holds."""

import io
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from imago.config import InferenceConfig
from imago.errors import ConfigError, DataRefused
from imago.serving.batch import THUMBNAIL, THUMBNAILS, THUMBNAILS_A_CLASS, Predictions, predict_folder
from imago.serving.package import ModelPackage
from imago.serving.runtime import Prediction, Runtime
from tests.packages import make_package, picture_bytes

CONFIG = InferenceConfig(batch_size=4)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    return make_package(tmp_path_factory.mktemp("packages") / "colours")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "pictures"
    (root / "night").mkdir(parents=True)
    for index, label in enumerate(("blue", "green", "red", "red", "red")):
        (root / f"{index}.png").write_bytes(picture_bytes(label, seed=index))
    (root / "night" / "é, 5.JPG").write_bytes(picture_bytes("green", seed=9, kind="JPEG"))
    return root


def rows(predictions: Predictions) -> dict[str, dict]:
    return {row["path"]: row for row in predictions.table.to_pylist()}


def test_every_picture_is_a_row_with_its_path_from_the_root(package: ModelPackage, folder: Path) -> None:
    predictions = predict_folder(package, folder, CONFIG)
    assert predictions.table.column_names == ["path", "label", "probability", "rejected", "reason"]
    assert {path: row["label"] for path, row in rows(predictions).items()} == {
        "0.png": "blue", "1.png": "green", "2.png": "red", "3.png": "red", "4.png": "red", "night/é, 5.JPG": "green",
    }  # fmt: skip
    assert predictions.failed == 0
    assert predictions.counts() == {"red": 3, "green": 2, "blue": 1}


def test_a_row_says_what_the_runtime_says(package: ModelPackage, folder: Path) -> None:
    row = rows(predict_folder(package, folder, CONFIG))["3.png"]
    answer = Runtime(package).predict([(folder / "3.png").read_bytes()])[0]
    assert isinstance(answer, Prediction)
    assert (row["label"], row["rejected"]) == (answer.label, answer.rejected)
    assert row["probability"] == pytest.approx(answer.probability, abs=1e-6)


def test_the_size_of_a_batch_changes_nothing(package: ModelPackage, folder: Path) -> None:
    one = predict_folder(package, folder, InferenceConfig(batch_size=1)).table.to_pylist()
    all_at_once = predict_folder(package, folder, InferenceConfig(batch_size=32)).table.to_pylist()
    for single, batched in zip(one, all_at_once, strict=True):
        assert single["probability"] == pytest.approx(batched.pop("probability"), abs=1e-6)
        assert {**batched, "probability": single["probability"]} == single


def test_files_that_cannot_be_read_are_rows_with_a_reason(package: ModelPackage, folder: Path) -> None:
    (folder / "text.jpg").write_text("no picture", encoding="utf-8")
    (folder / "cut.png").write_bytes(picture_bytes("red")[:200])
    (folder / "empty.png").touch()
    found = rows(predict_folder(package, folder, CONFIG))
    assert len(found) == 9
    failed = {path: row["reason"] for path, row in found.items() if row["label"] is None}
    assert failed.keys() == {"text.jpg", "cut.png", "empty.png"}
    assert "not one of JPEG" in failed["text.jpg"]
    assert "decoded" in failed["cut.png"]
    assert "empty" in failed["empty.png"]


def test_an_unsure_answer_is_rejected_with_its_reason(tmp_path: Path, folder: Path) -> None:
    unsure = make_package(tmp_path / "unsure", reject_threshold=0.999, sharpness=0.1)
    predictions = predict_folder(unsure, folder, CONFIG)
    assert predictions.rejected == len(predictions)
    assert "sure" in rows(predictions)["0.png"]["reason"]
    assert predictions.failed == 0


def test_hidden_files_other_files_and_links_that_leave_are_passed_over(
    package: ModelPackage, folder: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside.png"
    outside.write_bytes(picture_bytes("red"))
    (folder / "leaves.png").symlink_to(outside)
    (folder / "night" / "loop").symlink_to(folder)
    (folder / ".hidden.png").write_bytes(picture_bytes("red"))
    (folder / "labels.csv").write_text("path,label", encoding="utf-8")
    (folder / "directory.jpg").mkdir()
    os.mkfifo(folder / "pipe.png")
    assert len(predict_folder(package, folder, CONFIG)) == 6


def test_a_name_that_is_not_utf8_can_be_written(package: ModelPackage, folder: Path, tmp_path: Path) -> None:
    try:
        (folder / os.fsdecode(b"caf\xe9.png")).write_bytes(picture_bytes("red"))
    except OSError:
        pytest.fail("this file system takes UTF-8 names only: run the tests elsewhere")
    predictions = predict_folder(package, folder, CONFIG)
    predictions.write(tmp_path / "out.parquet")
    assert "caf\\xe9.png" in pq.read_table(tmp_path / "out.parquet").column("path").to_pylist()


def test_progress_counts_up_to_all_pictures(package: ModelPackage, folder: Path) -> None:
    told: list[tuple[int, int]] = []
    predict_folder(package, folder, CONFIG, lambda done, total: told.append((done, total)))
    assert told == [(4, 6), (6, 6)]


def test_no_folder_is_a_configuration_error(package: ModelPackage, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a folder"):
        predict_folder(package, tmp_path / "absent", CONFIG)


def test_a_folder_without_pictures_is_refused(package: ModelPackage, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("none", encoding="utf-8")
    with pytest.raises(DataRefused, match="no picture"):
        predict_folder(package, tmp_path, CONFIG)


def test_the_table_is_written_whole_and_nothing_else_is_left(
    package: ModelPackage, folder: Path, tmp_path: Path
) -> None:
    target = tmp_path / "made" / "predictions.parquet"
    predictions = predict_folder(package, folder, CONFIG)
    predictions.write(target)
    assert pq.read_table(target).to_pylist() == predictions.table.to_pylist()
    assert list(target.parent.iterdir()) == [target]


def test_the_sample_is_small_and_spread_over_the_labels(package: ModelPackage, tmp_path: Path) -> None:
    for index in range(120):
        label = "blue" if index == 70 else "red"
        (tmp_path / f"{index:03}.png").write_bytes(picture_bytes(label, seed=index, size=(300, 200)))
    predictions = predict_folder(package, tmp_path, CONFIG)
    assert len(predictions.thumbnails) == THUMBNAILS_A_CLASS + 1 <= THUMBNAILS
    assert "070.png" in predictions.thumbnails
    assert max(Image.open(io.BytesIO(predictions.thumbnails["070.png"])).size) == THUMBNAIL


def test_the_page_shows_counts_pictures_and_reasons_and_escapes_names(package: ModelPackage, folder: Path) -> None:
    (folder / "<b>bold.jpg").write_text("no picture", encoding="utf-8")
    page = predict_folder(package, folder, CONFIG).page
    assert "<h1>6 pictures predicted</h1>" in page
    assert "Files that could not be read: 1." in page
    assert page.count("data:image/jpeg;base64,") == 6
    assert "&lt;b&gt;bold.jpg: it is not one of" in page
    assert "http" not in page.replace("http-equiv", "")
