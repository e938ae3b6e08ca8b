"""`run.py data …` on pictures that the tests draw."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cli.data import data
from imago.config import SyntheticConfig
from imago.data.synthetic import synthetic_dataset, write_folder
from imago.errors import ConfigError, DataRefused

SMALL = SyntheticConfig(species=3, per_class_train=8, per_class_val=4, per_class_test=4)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("moths")
    write_folder(synthetic_dataset(SMALL, 64, seed=0), root)
    return root


@pytest.fixture
def moths(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IMAGO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("IMAGO_REPORTS", str(tmp_path / "reports"))
    (tmp_path / "own.yaml").write_text("data: {image_size: 64}\n", encoding="utf-8")
    return Path(shutil.copytree(drawn, tmp_path / "moths"))


def run(moths: Path, command: str, *arguments: str) -> Result:
    return CliRunner().invoke(data, [command, *arguments, "--config", str(moths.parent / "own.yaml")])


def test_describe_counts_pictures_by_class_and_split(moths: Path) -> None:
    result = run(moths, "describe", "--data", str(moths), "--json")
    assert result.exit_code == 0, result.output
    outcome = json.loads(result.stdout)
    assert outcome["pictures"] == 48
    assert outcome["splits"] == {"train": 24, "val": 12, "test": 12}
    assert len(outcome["classes"]) == 3
    assert outcome["width"] == {"min": 64, "median": 64, "max": 64}
    assert outcome["formats"] == {"JPEG": 48}
    assert outcome["unreadable"] == 0


def test_describe_tells_people_how_the_source_was_read(moths: Path) -> None:
    lines = run(moths, "describe", "--data", str(moths)).stdout.splitlines()
    assert lines[1] == "48 pictures, 0 of them not readable"
    assert "24 in train" in lines[2]


def test_describe_without_a_source_draws_the_synthetic_moths(moths: Path) -> None:
    result = run(
        moths, "describe", "--json",
        *("--set", "data.synthetic.per_class_train=2"),
        *("--set", "data.synthetic.per_class_val=1"),
        *("--set", "data.synthetic.per_class_test=1"),
    )  # fmt: skip
    assert json.loads(result.stdout)["pictures"] == 8 * 4


def test_check_accepts_good_pictures_and_writes_the_report(moths: Path) -> None:
    result = run(moths, "check", "--data", str(moths), "--json")
    assert result.exit_code == 0, result.output
    outcome = json.loads(result.stdout)
    assert outcome["verdict"] == "accepted"
    assert outcome["pictures"] == {"found": 48, "accepted": 48, "quarantined": 0}
    assert "<html" in Path(outcome["report"]).read_text(encoding="utf-8")


def test_check_names_what_it_quarantines(moths: Path) -> None:
    (moths / "train" / "velora_fasciata" / "text.jpg").write_text("no picture", encoding="utf-8")
    result = run(moths, "check", "--data", str(moths), "--json")
    assert result.exit_code == 0, result.output
    outcome = json.loads(result.stdout)
    assert outcome["pictures"] == {"found": 49, "accepted": 48, "quarantined": 1}
    undecodable = next(check for check in outcome["checks"] if check["id"] == "undecodable")
    assert undecodable["pictures"] == ["train/velora_fasciata/text.jpg"]


def test_check_exits_with_3_and_still_prints_one_object_where_the_data_is_refused(moths: Path) -> None:
    for split in ("train", "val", "test"):
        for species in ("noctessa_ocellata", "umbrella_striata"):
            for file in sorted((moths / split / species).iterdir()):
                file.write_text("no picture", encoding="utf-8")
    result = run(moths, "check", "--data", str(moths), "--json")
    assert result.exit_code == DataRefused.exit_code == 3
    assert json.loads(result.stdout)["verdict"] == "refused"
    assert result.stderr.startswith("error: The data is refused: ")


def test_check_of_a_source_without_pictures_keeps_its_shape(moths: Path) -> None:
    (moths / "empty").mkdir()
    result = run(moths, "check", "--data", str(moths / "empty"), "--json")
    assert result.exit_code == 3
    outcome = json.loads(result.stdout)
    assert outcome["verdict"] == "refused"
    assert outcome["pictures"] == {"found": 0, "accepted": 0, "quarantined": 0}
    assert "There are no pictures in" in outcome["reasons"][0]
    assert (outcome["checks"], outcome["report"]) == ([], None)


def test_check_of_one_class_refuses_and_shows_it(moths: Path) -> None:
    one = moths.parent / "one"
    shutil.copytree(moths / "train" / "velora_fasciata", one / "velora_fasciata")
    result = run(moths, "check", "--data", str(one), "--json")
    outcome = json.loads(result.stdout)
    assert (result.exit_code, outcome["verdict"], outcome["pictures"]["found"]) == (3, "refused", 8)
    assert "one class only, 'velora_fasciata'" in outcome["reasons"][0]
    assert "<html" in Path(outcome["report"]).read_text(encoding="utf-8")


def test_diff_names_every_kind_of_change(moths: Path) -> None:
    new = Path(shutil.copytree(moths, moths.parent / "new"))
    first = new / "train" / "velora_fasciata"
    (first / "0001.jpg").unlink()
    (first / "0002.jpg").rename(new / "train" / "noctessa_ocellata" / "relabelled.jpg")
    (first / "0003.jpg").rename(new / "test" / "velora_fasciata" / "moved.jpg")
    extra = synthetic_dataset(SMALL, 64, seed=9)
    (first / "added.jpg").write_bytes(extra.image(0))
    result = run(moths, "diff", str(moths), str(new), "--json")
    assert result.exit_code == 0, result.output
    outcome = json.loads(result.stdout)
    assert outcome["identical"] is False
    assert outcome["added"] == ["train/velora_fasciata/added.jpg"]
    assert outcome["removed"] == ["train/velora_fasciata/0001.jpg"]
    assert outcome["relabelled"] == [
        {"path": "train/noctessa_ocellata/relabelled.jpg", "from": "velora_fasciata", "to": "noctessa_ocellata"}
    ]
    assert outcome["moved"] == [{"path": "test/velora_fasciata/moved.jpg", "from": "train", "to": "test"}]
    assert outcome["old"]["pictures"] == outcome["new"]["pictures"] == 48


def test_diff_of_a_source_with_itself_is_identical(moths: Path) -> None:
    result = run(moths, "diff", str(moths), str(moths))
    assert result.stdout == "The same pictures under the same labels in the same splits.\n"


def test_check_builds_great_expectations_own_pages_where_asked(moths: Path) -> None:
    docs = moths.parent / "docs"
    result = run(moths, "check", "--data", str(moths), "--docs", str(docs), "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["docs"] == str(docs / "index.html")
    assert "pictures" in (docs / "index.html").read_text(encoding="utf-8")
    assert any("max_pixels" in page.read_text(encoding="utf-8") for page in docs.rglob("*.html"))


def test_export_writes_a_card(moths: Path) -> None:
    (moths / "train" / "velora_fasciata" / "a|b.jpg").write_text("no picture", encoding="utf-8")
    target = moths.parent / "processed"
    run(moths, "export", "--data", str(moths), "--to", str(target), "--json")
    card = (target / "DATASET_CARD.md").read_text(encoding="utf-8")
    assert "| pictures | 48 of 49 found |" in card
    assert "| velora_fasciata | 8 | 4 | 4 |" in card
    assert "- train/velora_fasciata/a\\|b.jpg: undecodable: it is not one of" in card


@pytest.mark.parametrize("layout", ["folders", "parquet"])
def test_export_writes_the_accepted_pictures_only(moths: Path, layout: str) -> None:
    (moths / "train" / "velora_fasciata" / "text.jpg").write_text("no picture", encoding="utf-8")
    target = moths.parent / "processed"
    result = run(moths, "export", "--data", str(moths), "--to", str(target), "--format", layout, "--json")
    assert result.exit_code == 0, result.output
    outcome = json.loads(result.stdout)
    assert (outcome["pictures"], outcome["quarantined"]) == (48, 1)
    assert not list(target.rglob("text.jpg"))


@pytest.mark.parametrize("layout", ["folders", "parquet"])
def test_what_was_exported_is_read_back_as_the_same_data(moths: Path, layout: str) -> None:
    target = moths.parent / "processed"
    exported = run(moths, "export", "--data", str(moths), "--to", str(target), "--format", layout, "--json")
    read = run(moths, "describe", "--data", str(target), "--json")
    assert json.loads(read.stdout)["fingerprint"] == json.loads(exported.stdout)["fingerprint"]


def test_a_source_that_is_not_there_is_a_configuration_error(moths: Path) -> None:
    result = run(moths, "describe", "--data", str(moths / "absent"))
    assert isinstance(result.exception, ConfigError)
