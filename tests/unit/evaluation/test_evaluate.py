import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from imago.config import EvaluationConfig, GateConfig
from imago.data.dataset import ImageDataset
from imago.data.synthetic import SPECIES, write_folder
from imago.errors import DataRefused
from imago.evaluation.evaluate import evaluate
from imago.evaluation.gate import decide
from imago.evaluation.page import with_verdict
from imago.evaluation.report import PREDICTIONS, EvaluationReport
from imago.footprint import Spent
from imago.serving.package import ModelPackage
from tests.packages import CLASSES, colour_dataset, make_package
from tests.unit.evaluation.reports import as_written_before

QUICK = EvaluationConfig(bootstrap_samples=20, robustness=False)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> EvaluationReport:
    package = make_package(tmp_path_factory.mktemp("model") / "package", reject_threshold=0.5)
    return evaluate(package, colour_dataset(test=10, mislabelled=3), EvaluationConfig(bootstrap_samples=20), seed=0)


def test_every_number_is_about_the_test_split_only(report: EvaluationReport) -> None:
    assert report.metrics.pictures == report.predictions.num_rows == 30
    assert report.metrics.accuracy == pytest.approx(0.9)
    assert report.test_fingerprint == colour_dataset(test=10, mislabelled=3).split("test").fingerprint
    assert report.figures()["test_accuracy"] == report.metrics.accuracy


def test_predictions_say_each_answer(report: EvaluationReport) -> None:
    assert report.predictions.schema == PREDICTIONS
    rows = report.predictions.to_pylist()
    wrong = [row["id"] for row in rows if not row["correct"]]
    assert wrong == ["test/blue/000.png", "test/blue/001.png", "test/blue/002.png"]
    for row in rows:
        assert row["predicted"] == CLASSES[max(range(3), key=lambda index: row["probabilities"][index])]
        assert sum(row["probabilities"]) == pytest.approx(1.0, abs=1e-5)
        assert (row["width"], row["height"]) == (48, 40)


def test_what_the_gate_needs_is_there(report: EvaluationReport) -> None:
    assert 0 < report.latency_ms <= report.latency_ms_p95
    assert report.model_bytes > 100
    assert report.memory_bytes is None or report.figures()["memory_bytes"] == report.memory_bytes > 0
    assert report.classes == CLASSES
    assert {(result.corruption, result.strength) for result in report.robustness} >= {("blur", 1), ("jpeg", 3)}


def test_what_is_withheld_is_judged(report: EvaluationReport) -> None:
    assert report.rejection is not None
    stands = [row for row in report.predictions.to_pylist() if not row["rejected"]]
    assert report.rejection.coverage == len(stands) / 30
    assert report.rejection.error == pytest.approx(sum(not row["correct"] for row in stands) / len(stands))
    assert report.rejection.curve[-1].error == pytest.approx(0.1)
    assert report.rejection.strangers is not None
    assert report.rejection.strangers.what == "192 drawn moths of 12 made-up species"
    assert report.rejection.strangers.count == 192
    assert report.rejection.strangers.auroc > 0.5
    assert report.figures()["strangers_auroc"] == report.rejection.strangers.auroc


def test_what_the_threshold_does_where_it_was_fitted_is_told(tmp_path: Path) -> None:
    package = make_package(tmp_path / "package")
    rows = pq.read_table(package.reference).to_pylist()
    for index, row in enumerate(rows):
        told = {"rejected": index == 0, "feedback": "nothing" if index == 1 else row["label"]}
        rows[index] = row | told
    pq.write_table(pa.Table.from_pylist(rows), package.reference)
    report = evaluate(package, colour_dataset(), QUICK, seed=0)
    assert report.rejection is not None
    assert (report.rejection.validation_coverage, report.rejection.validation_error) == (7 / 8, pytest.approx(1 / 7))


def test_test_pictures_of_classes_never_taught_are_strangers_too(tmp_path: Path) -> None:
    write_folder(colour_dataset(classes=("yellow", "blue"), train=3, val=0, test=0), tmp_path / "outside")
    config = QUICK.model_copy(update={"outside": str(tmp_path / "outside")})
    report = evaluate(make_package(tmp_path / "package", ("blue", "green")), colour_dataset(test=4), config, seed=0)
    assert report.rejection is not None
    strangers = report.rejection.strangers
    assert strangers is not None
    assert strangers.what == "3 pictures of outside and 4 test pictures of classes that it was never taught"
    assert strangers.count == 7
    assert strangers.auroc == pytest.approx(4 / 7)  # it is less sure of every red, and surer of every yellow


def test_outside_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "outside" / "stone").mkdir(parents=True)
    (tmp_path / "outside" / "stone" / "1.png").write_bytes(b"no picture")
    config = QUICK.model_copy(update={"outside": str(tmp_path / "outside")})
    with pytest.raises(DataRefused, match=r"evaluation\.outside: none of the pictures"):
        evaluate(make_package(tmp_path / "package"), colour_dataset(test=4), config, seed=0)


def test_the_page_says_the_verdict_first_and_fetches_nothing(report: EvaluationReport) -> None:
    page = report.html
    assert page.index("90% of 30 pictures") < page.index("Worst mistakes") < page.index("Class by class")
    assert page.count('src="data:image/jpeg;base64,') == 6 + 2  # three mistakes with maps, and one pair of classes
    assert "found by occlusion" in page  # there is no torch model of this architecture
    assert "knows no &#39;mean_colour&#39;" in page
    assert "<script" not in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
    assert 'src="http' not in page


def test_what_the_gate_said_stands_above_the_figures(report: EvaluationReport) -> None:
    decision = decide(report, None, GateConfig(min_accuracy=0.0, max_calibration_error=1.0))
    page = with_verdict(report.html, decision)
    assert 0 < page.index('<p class="verdict good"><b>Promoted.</b> First of its name: ') < page.index("<h1>")
    refused = decision.model_copy(update={"promoted": False, "reason": "of <i>x</i> it names 0"})
    assert '<p class="verdict bad"><b>Not promoted.</b> of &lt;i&gt;x&lt;/i&gt; it' in with_verdict(
        report.html, refused
    )
    assert '<p class="verdict' not in report.html


def test_a_name_cannot_smuggle_markup_into_the_page(tmp_path: Path) -> None:
    classes = ("<script>alert(1)</script>", "red")
    dataset = colour_dataset(classes=classes, test=4, mislabelled=1)
    page = evaluate(make_package(tmp_path / "package", classes), dataset, QUICK, seed=0).html
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_the_page_says_what_training_spent_and_whose_weights_it_began_with(tmp_path: Path) -> None:
    package = make_package(tmp_path / "package")
    spent = Spent(wall_seconds=60, cpu_seconds=3600, watts_per_core=12, grid_intensity=473)
    changes = {"spent": spent, "weights": "hub (hub)", "weights_license": "<mit>"}
    (package.path / "spec.json").write_text(package.spec.model_copy(update=changes).model_dump_json(), encoding="utf-8")
    page = evaluate(ModelPackage(package.path), colour_dataset(), QUICK, seed=0).html
    assert f"<dt>Training took</dt><dd>60 s by the clock, 3600 CPU seconds; {spent.estimate()}</dd>" in page
    assert "weights hub (hub); their licence: &lt;mit&gt;" in page


def test_a_report_of_an_earlier_version_is_read(report: EvaluationReport) -> None:
    written = {key: value for key, value in as_written_before(report).items() if key not in {"predictions", "html"}}
    assert "log_loss_interval" not in written["metrics"]
    again = EvaluationReport.from_json(json.dumps(written), report.predictions, report.html)
    assert again.metrics.accuracy_interval == report.metrics.accuracy_interval
    assert again.metrics.log_loss_interval is None


def test_two_evaluations_find_the_same(tmp_path: Path) -> None:
    package, dataset = make_package(tmp_path / "package"), colour_dataset()
    first, again = (evaluate(package, dataset, QUICK, seed=0) for _ in range(2))
    assert first.content_hash == again.content_hash
    other = evaluate(package, colour_dataset(mislabelled=1), QUICK, seed=0)
    assert other.content_hash != first.content_hash


def test_a_class_that_the_model_was_never_taught_counts_as_wrong(tmp_path: Path) -> None:
    package = make_package(tmp_path / "package", ("blue", "green"))
    report = evaluate(package, colour_dataset(test=4), QUICK, seed=0)
    assert report.unknown_classes == ("red",)
    assert report.metrics.accuracy == pytest.approx(2 / 3)
    assert "never taught: red" in report.html


def test_the_page_says_why_no_strangers_were_judged(tmp_path: Path) -> None:
    package = make_package(tmp_path / "package", ("blue", "green"))
    strange = evaluate(package, colour_dataset(classes=("red", "yellow")), QUICK, seed=0).html
    assert "no test picture shows a class that it knows" in strange
    assert "all that can be drawn" not in strange
    knows_all = evaluate(
        make_package(tmp_path / "all", SPECIES), colour_dataset(classes=SPECIES[:2], test=2), QUICK, seed=0
    ).html
    assert "it knows all that can be drawn" in knows_all


def test_figures_alone_are_those_of_the_whole_evaluation_without_what_no_comparison_needs(
    report: EvaluationReport, tmp_path: Path
) -> None:
    package = make_package(tmp_path / "package", reject_threshold=0.5)
    whole = EvaluationConfig(bootstrap_samples=20, outside=str(tmp_path / "gone"))
    short = evaluate(package, colour_dataset(test=10, mislabelled=3), whole, seed=0, figures_only=True)
    assert short.metrics == report.metrics
    assert short.predictions == report.predictions
    assert short.rejection is not None
    assert short.rejection.strangers is None
    assert (short.robustness, short.macs, short.memory_bytes, short.html) == ((), None, None, "")


def test_the_page_says_that_the_memory_was_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imago.evaluation.memory._PATIENCE", 0.001)
    page = evaluate(make_package(tmp_path / "package"), colour_dataset(test=2), QUICK, seed=0).html
    assert "<dt>Memory</dt><dd>not measured:" in page


def test_many_classes_are_drawn_as_a_map(tmp_path: Path) -> None:
    classes = tuple(f"species_{index}" for index in range(30))
    report = evaluate(
        make_package(tmp_path / "package", classes),
        colour_dataset(classes=classes, train=1, val=1, test=2),
        QUICK,
        seed=0,
    )
    assert '<svg class="matrix"' in report.html
    assert "10 more classes" in report.html


def test_progress_is_told_up_to_the_end(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    package = make_package(tmp_path / "package")
    evaluate(
        package, colour_dataset(test=15), QUICK, seed=0, on_progress=lambda done, total: told.append((done, total))
    )
    assert told == [(32, 45), (45, 45)]


def test_no_test_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataRefused, match="no test pictures"):
        evaluate(make_package(tmp_path / "package"), colour_dataset(test=0), QUICK, seed=0)


def test_an_unreadable_test_picture_is_named(tmp_path: Path) -> None:
    broken = ImageDataset.from_rows(["test/red/x.jpg"], [b"not a picture"], ["red"], ["test"], origin="made up")
    with pytest.raises(DataRefused, match=r"test/red/x\.jpg"):
        evaluate(make_package(tmp_path / "package"), broken, QUICK, seed=0)


def test_the_page_shows_every_figure_with_its_interval_and_the_price_of_answering(report: EvaluationReport) -> None:
    page = report.html
    section = page.split("<h2>Every figure</h2>")[1].split("</table>")[0]
    metrics = report.metrics
    assert metrics.log_loss_interval is not None
    assert f"{metrics.log_loss:.3f}" in section
    assert f"{metrics.log_loss_interval.low:.3f}–{metrics.log_loss_interval.high:.3f}" in section
    assert f"{metrics.uncalibrated_expected_calibration_error:.1%}" in section
    assert 'aria-label="Risk-coverage curve"' in page
    assert "Strangers: 192 drawn moths of 12 made-up species. It withholds" in page
    assert "cropping" in page


def test_the_weakest_part_comes_first_on_the_page(tmp_path: Path) -> None:
    plain = colour_dataset(test=10, mislabelled=3)
    wrong = {f"test/blue/{index:03d}.png" for index in range(3)}
    attributes = ['{"site": "lake"}' if name in wrong or name[-5] in "56" else '{"site": "hill"}' for name in plain.ids]
    images = [plain.image(row) for row in range(len(plain))]
    dataset = ImageDataset.from_rows(plain.ids, images, plain.labels, plain.splits, attributes, origin="made up")
    report = evaluate(make_package(tmp_path / "package"), dataset, QUICK, seed=0)
    parts = report.html.split("<h2>Parts of the test pictures</h2>")[1].split("</table>")[0]
    assert parts.index("site: lake") < parts.index("site: hill")
    (lake,) = (entry for entry in report.slices if entry.value == "lake")
    assert (lake.by, lake.count, lake.accuracy) == ("site", 9, pytest.approx(2 / 3))
    assert report.test_fingerprint == plain.split("test").fingerprint


def test_a_weak_class_is_marked_on_the_page(tmp_path: Path) -> None:
    package = make_package(tmp_path / "package")
    for mislabelled, marked in ((8, ["blue"]), (1, [])):
        page = evaluate(package, colour_dataset(test=10, mislabelled=mislabelled), QUICK, seed=0).html
        table = page.split("<h2>Class by class</h2>")[1].split("</table>")[0]
        assert [label for label in CLASSES if f'<th>{label} <b class="weak">weak</b></th>' in table] == marked
        assert ("Weak class: blue, 2 of 10 right" in page) == bool(marked)


def test_a_picture_of_a_rare_class_is_known_by_what_was_taught(tmp_path: Path) -> None:
    plain = colour_dataset(train=12, test=10)
    kept = plain.without({f"train/red/{index:03d}.png" for index in range(4, 12)}).without(
        {f"train/blue/{index:03d}.png" for index in range(8, 12)}
    )
    report = evaluate(make_package(tmp_path / "package"), kept, QUICK, seed=0)
    sizes = {entry.value: entry.count for entry in report.slices if entry.by == "class size"}
    assert sizes == {"rare": 10, "middling": 10, "frequent": 10}
    assert {entry.by for entry in report.slices} >= {"class", "class size", "brightness", "sharpness"}


def test_labels_that_look_wrong_are_shown_with_their_pictures(tmp_path: Path) -> None:
    package = make_package(tmp_path / "package")
    rows = [
        {"id": "train/red/001.png", "label": "red", "likelier": "blue", "probability": 0.001},
        {"id": "train/red/999.png", "label": "red", "likelier": "green", "probability": 0.002},  # not in this data
    ]
    (package.path / "suspects.json").write_text(json.dumps(rows), encoding="utf-8")
    report = evaluate(package, colour_dataset(), QUICK, seed=0)
    assert [one.id for one in report.suspects] == [row["id"] for row in rows]
    section = report.html.partition("Labels that look wrong")[2].partition("<h2>")[0]
    assert "labelled <b>red</b><br>looks like <b>blue</b>" in section
    assert section.count("<img") == 1


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (None, "Not looked for: that takes features of a pretrained backbone"),
        ([], "None found among the training pictures."),
        (
            [{"id": "gone.png", "label": "red", "likelier": "blue", "probability": 0.001}],
            "1 were found in what it was trained on; none of them is among the 12 training pictures here.",
        ),
    ],
)
def test_without_doubtful_labels_it_is_said_whether_they_were_looked_for(
    tmp_path: Path, written: list[dict[str, object]] | None, said: str
) -> None:
    package = make_package(tmp_path / "package")
    if written is not None:
        (package.path / "suspects.json").write_text(json.dumps(written), encoding="utf-8")
    report = evaluate(package, colour_dataset(), QUICK, seed=0)
    assert said in report.html.partition("Labels that look wrong")[2].partition("<h2>")[0]
