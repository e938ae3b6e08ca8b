"""Data, its statistics and its verdict come back from an artifact store as they went in, through ZenML too."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from zenml.client import Client
from zenml.config.global_config import GlobalConfiguration
from zenml.enums import VisualizationType
from zenml.materializers.materializer_registry import materializer_registry

from imago.config import DataConfig
from imago.data.dataset import ImageDataset
from imago.data.statistics import PictureTable, compute_statistics
from imago.data.validation import ValidationResult, validate
from imago.errors import ImagoError
from materializers.folder import MARKER
from materializers.image_dataset import DATA, ImageDatasetMaterializer
from materializers.picture_table import PictureTableMaterializer
from materializers.validation_result import ISSUES, ValidationResultMaterializer
from tests.unit.data.flock import bytes_of, flock

DATASET = flock(
    ("train/io/words.jpg", b"words", "io", "train"),
    ("train/luna/leak.jpg", bytes_of("test/luna/0.jpg"), "luna", "train"),
)


@pytest.fixture(scope="module")
def table() -> PictureTable:
    return compute_statistics(DATASET)


@pytest.fixture(scope="module")
def result(table: PictureTable) -> ValidationResult:
    return validate(DATASET, table, DataConfig())


@pytest.fixture
def zenml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """ZenML with a configuration and a store of its own."""
    monkeypatch.setenv("ZENML_CONFIG_PATH", str(tmp_path / "zenml"))
    monkeypatch.setenv("ZENML_ANALYTICS_OPT_IN", "false")
    monkeypatch.chdir(tmp_path)
    GlobalConfiguration._reset_instance()
    Client._reset_instance()
    yield Client()
    GlobalConfiguration._reset_instance()
    Client._reset_instance()


def test_zenml_picks_these_materializers() -> None:
    assert materializer_registry[ImageDataset] is ImageDatasetMaterializer
    assert materializer_registry[PictureTable] is PictureTableMaterializer
    assert materializer_registry[ValidationResult] is ValidationResultMaterializer


@pytest.mark.slow
def test_all_three_come_back_through_zenml(zenml: Client, table: PictureTable, result: ValidationResult) -> None:
    from zenml import load_artifact, save_artifact

    stored = save_artifact(DATASET, name="dataset", materializer=ImageDatasetMaterializer)
    save_artifact(table, name="statistics", materializer=PictureTableMaterializer)
    save_artifact(result, name="validation", materializer=ValidationResultMaterializer)
    loaded = load_artifact("dataset")
    assert list(loaded.batches()) == list(DATASET.batches())
    assert loaded.origin == DATASET.origin
    pd.testing.assert_frame_equal(load_artifact("statistics").frame, table.frame)
    assert load_artifact("validation") == result
    found = zenml.get_artifact_version(stored.id)
    assert found.run_metadata["pictures"] == len(DATASET)
    assert found.run_metadata["classes"] == ["io", "luna", "vapourer"]
    assert [picture.type for picture in found.visualizations] == [VisualizationType.HTML]
    assert not list(Path(found.uri).rglob("*.pkl"))


def test_a_local_data_set_is_read_where_it_lies(tmp_path: Path) -> None:
    materializer = ImageDatasetMaterializer(str(tmp_path / "artifact"))
    materializer.save(DATASET)
    loaded = materializer.load(ImageDataset)
    assert loaded.fingerprint == DATASET.fingerprint
    assert str(tmp_path / "artifact" / DATA) in Path("/proc/self/maps").read_text(encoding="utf-8")


def test_the_bytes_are_those_of_the_files(tmp_path: Path) -> None:
    materializer = ImageDatasetMaterializer(str(tmp_path / "artifact"))
    materializer.save(DATASET)
    assert bytes_of("train/luna/3.jpg") in (tmp_path / "artifact" / DATA).read_bytes()


@pytest.mark.parametrize("lost", ["the marker", "the end"])
def test_half_a_data_set_is_not_read(lost: str, tmp_path: Path) -> None:
    materializer = ImageDatasetMaterializer(str(tmp_path / "artifact"))
    materializer.save(DATASET)
    if lost == "the marker":
        (tmp_path / "artifact" / MARKER).unlink()
    else:
        (tmp_path / "artifact" / DATA).write_bytes((tmp_path / "artifact" / DATA).read_bytes()[:-1000])
    with pytest.raises(ImagoError, match="run the step that made it again"):
        materializer.load(ImageDataset)


def test_hashes_follow_the_content(table: PictureTable, result: ValidationResult, tmp_path: Path) -> None:
    data, pictures = ImageDatasetMaterializer(str(tmp_path)), PictureTableMaterializer(str(tmp_path))
    verdict = ValidationResultMaterializer(str(tmp_path))
    assert data.compute_content_hash(DATASET) == data.compute_content_hash(DATASET.without([]))
    assert data.compute_content_hash(DATASET) != data.compute_content_hash(flock())
    assert pictures.compute_content_hash(table) == pictures.compute_content_hash(compute_statistics(DATASET))
    assert pictures.compute_content_hash(table) != pictures.compute_content_hash(table.without(["train/io/0.jpg"]))
    again = validate(DATASET, table, DataConfig())
    assert verdict.compute_content_hash(result) == verdict.compute_content_hash(again)
    refused = result.model_copy(update={"verdict": "refused"})
    assert verdict.compute_content_hash(result) != verdict.compute_content_hash(refused)


def test_what_a_manifest_says_is_kept_and_hashed(tmp_path: Path) -> None:
    def told(text: str | None) -> ImageDataset:
        return ImageDataset.from_rows(["a.jpg"], [b"1"], ["x"], ["train"], [text], origin="a test")

    materializer = ImageDatasetMaterializer(str(tmp_path / "artifact"))
    materializer.save(told('{"camera": "Nikon"}'))
    assert materializer.load(ImageDataset).attributes == [{"camera": "Nikon"}]
    hashes = {
        materializer.compute_content_hash(told(text)) for text in ('{"camera": "Nikon"}', '{"camera": "Canon"}', None)
    }
    assert len(hashes) == 3


def test_the_dashboard_shows_a_page_a_summary_and_a_contact_sheet(
    table: PictureTable, result: ValidationResult, tmp_path: Path
) -> None:
    shown = {}
    for name, kind, data in (
        ("data", ImageDatasetMaterializer, DATASET),
        ("statistics", PictureTableMaterializer, table),
        ("verdict", ValidationResultMaterializer, result),
    ):
        materializer = kind(str(tmp_path / name))
        materializer.save(data)
        [(file, shape)] = materializer.save_visualizations(data).items()
        shown[name] = (shape, Path(file).read_text(encoding="utf-8"))
        assert kind(str(tmp_path / name)).load(type(data)) is not None
    assert shown["data"][0] == VisualizationType.HTML
    assert shown["data"][1].count("<img") > 3
    assert shown["statistics"][0] == VisualizationType.CSV
    assert shown["statistics"][1].startswith("statistic,bytes,width")
    assert shown["verdict"] == (VisualizationType.HTML, result.page)


def test_issues_can_be_read_without_imago(result: ValidationResult, tmp_path: Path) -> None:
    ValidationResultMaterializer(str(tmp_path / "verdict")).save(result)
    rows = pq.read_table(tmp_path / "verdict" / ISSUES).to_pylist()
    assert {"id": "train/io/words.jpg", "check": "undecodable", "severity": "quarantine", "quarantined": True} in rows
    stays = [row["id"] for row in rows if row["check"] == "duplicate_across_splits" and not row["quarantined"]]
    assert stays == ["test/luna/0.jpg"]
