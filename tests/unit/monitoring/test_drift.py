"""Drift is found where pictures have changed, and hardly ever where they have not."""

import json
import re
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageFilter

from imago.config import MonitoringConfig
from imago.data.features import picture_features
from imago.data.synthetic import draw_moth
from imago.data.transforms import RGB
from imago.errors import ImagoError
from imago.monitoring.drift import compare, detect, drift_tests
from imago.monitoring.prediction_store import PredictionStore, to_table
from imago.serving.package import ModelPackage
from tests.packages import make_package

CONFIG = MonitoringConfig()
POOL = 640
PROJECTION = np.random.default_rng(1).normal(0, 0.2, (8 * 8 * 3, 48)).astype(np.float32)


@cache
def moths() -> tuple[RGB, ...]:
    rng = np.random.default_rng(0)
    return tuple(draw_moth(index % 8, rng, 64) for index in range(POOL))


def table(pictures: list[RGB], *, seed: int = 0) -> pd.DataFrame:
    """What the prediction store would hold, with a random projection in the place of a model's embedding."""
    rng = np.random.default_rng(seed)
    rows = []
    for index, picture in enumerate(pictures):
        small = np.asarray(Image.fromarray(picture).resize((8, 8)), dtype=np.float32).reshape(-1) / 255
        rows.append(
            {
                "time": f"2026-01-01T00:{index // 60:02d}:{index % 60:02d}.000000+00:00",
                "label": f"species {rng.integers(8)}",
                "probability": rng.beta(8, 1),
                "embedding": np.maximum(0, small @ PROJECTION),
                "feedback": None,
                **picture_features(picture),
            }
        )
    return pd.DataFrame(rows)


@cache
def everyday() -> pd.DataFrame:
    return table(list(moths()))


def brighter(picture: RGB) -> RGB:
    return np.clip(picture.astype(np.float32) * 1.25 + 10, 0, 255).astype(np.uint8)


def blurred(picture: RGB) -> RGB:
    return np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(1.2)))


def warmer(picture: RGB) -> RGB:
    """Another camera's white balance: red up, blue down, the brightness kept."""
    return np.clip(picture.astype(np.float32) * np.array([1.15, 1.0, 0.8]), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("change", "expected"), [(brighter, "brightness"), (blurred, "sharpness"), (warmer, "blue")])
def test_a_change_of_light_or_camera_is_found_in_200_pictures(change, expected: str) -> None:
    current = table([change(picture) for picture in moths()[100:300]])
    report = compare(everyday().iloc[:100], current, CONFIG)
    assert report.verdict == "drifted"
    assert expected in {test.name for test in report.tests if test.drifted}
    assert expected in report.sentence


def test_a_change_of_the_embedding_alone_is_found() -> None:
    current = everyday().iloc[100:300].copy()
    current["embedding"] = [vector + 0.15 for vector in current["embedding"]]
    report = compare(everyday().iloc[:100], current, CONFIG)
    assert [test.name for test in report.tests if test.drifted] == ["embedding"]


def test_other_species_being_asked_for_is_drift_of_the_label() -> None:
    current = everyday().iloc[100:300].copy()
    current["label"] = np.where(np.arange(200) % 2 == 0, "species 0", current["label"])
    tests = {test.name: test for test in drift_tests(everyday().iloc[:100], current, CONFIG)}
    assert tests["label"].drifted
    assert tests["label"].effect_size > 0.3


def test_without_a_change_false_alarms_are_rare() -> None:
    alarms = 0
    for seed in range(20):
        rows = everyday().sample(frac=1, random_state=seed)
        alarms += any(test.drifted for test in drift_tests(rows.iloc[:100], rows.iloc[100:300], CONFIG))
    assert alarms <= 1


def test_a_test_has_found_drift_where_its_statistic_exceeds_its_threshold() -> None:
    current = table([brighter(picture) for picture in moths()[100:300]])
    for test in drift_tests(everyday().iloc[:100], current, CONFIG):
        assert test.drifted == (test.statistic > test.threshold)
        assert 0 <= test.effect_size <= 1
        assert 0 < test.p_value <= 1 or test.statistic > 0.9


def test_an_effect_below_the_minimum_is_not_drift_however_sure() -> None:
    current = table([brighter(picture) for picture in moths()[100:300]])
    assert not any(test.drifted for test in drift_tests(everyday()[:100], current, MonitoringConfig(min_effect=1.0)))


def test_too_few_predictions_are_not_enough_data() -> None:
    report = compare(everyday().iloc[:100], everyday().iloc[100:149], CONFIG)
    assert report.verdict == "not_enough_data"
    assert report.tests == ()
    assert report.window.count == 49
    assert "at least 50" in report.sentence


def test_no_predictions_are_not_enough_data() -> None:
    report = compare(everyday().iloc[:100], everyday().iloc[:0], CONFIG)
    assert report.verdict == "not_enough_data"
    assert report.estimated_accuracy is None
    assert report.window.since is None


def test_too_small_a_reference_is_not_enough_data() -> None:
    report = compare(everyday().iloc[:8], everyday().iloc[100:300], CONFIG)
    assert report.verdict == "not_enough_data"
    assert "only 8 pictures" in report.sentence


def test_accuracy_comes_from_feedback_and_its_estimate_from_confidence() -> None:
    current = everyday().iloc[100:200].copy()
    feedback = [None] * 100
    feedback[:4] = [*current["label"].iloc[:3], "something else"]
    current["feedback"] = feedback
    report = compare(everyday().iloc[:100], current, CONFIG)
    assert report.accuracy == 0.75
    assert report.feedback == 4
    assert report.estimated_accuracy == pytest.approx(current["probability"].mean())


def test_without_feedback_the_accuracy_is_unknown() -> None:
    assert compare(everyday().iloc[:100], everyday().iloc[100:120], CONFIG).accuracy is None


def test_the_json_holds_the_window_and_every_test() -> None:
    payload = json.loads(json.dumps(compare(everyday().iloc[:100], everyday().iloc[100:300], CONFIG).to_json()))
    assert payload["verdict"] == "stable"
    assert payload["window"] == {
        "from": "2026-01-01T00:01:40.000000+00:00",
        "to": "2026-01-01T00:04:59.000000+00:00",
        "count": 200,
    }
    assert {test["name"] for test in payload["tests"]} == {
        "brightness", "contrast", "sharpness", "red", "green", "blue", "probability", "label", "embedding",
    }  # fmt: skip
    assert {"name", "statistic", "threshold", "p_value", "effect_size", "drifted"} <= payload["tests"][0].keys()


def test_the_page_says_the_verdict_first_and_loads_nothing() -> None:
    report = compare(everyday().iloc[:100], everyday().iloc[100:300], CONFIG)
    assert "<h1>Stable</h1>" in report.page
    assert report.page.index("<h1>Stable</h1>") < report.page.index("drawDashboard")
    assert not re.search(r"<(script|link|img|iframe)[^>]*\b(src|href)\s*=\s*[\"']?(https?:)?//", report.page)
    assert report.evidently["metrics"][0]["value"] == pytest.approx(report.tests[0].p_value)
    json.dumps(report.evidently)


def test_names_from_the_data_are_escaped_on_the_page() -> None:
    current = everyday().iloc[100:110].assign(label="<script>alert(1)</script>", time="<b>now</b>")
    assert "<b>now" not in compare(everyday().iloc[:100], current, CONFIG).page


def test_embeddings_stored_as_bytes_are_read_like_lists() -> None:
    reference, current = everyday().iloc[:100], everyday().iloc[100:300].copy()
    as_lists = drift_tests(reference, current, CONFIG)
    current["embedding"] = [vector.astype("<f4").tobytes() for vector in current["embedding"]]
    assert drift_tests(reference, current, CONFIG) == as_lists


def test_embeddings_of_another_model_are_refused() -> None:
    current = everyday().iloc[100:300].copy()
    current["embedding"] = [vector[:10] for vector in current["embedding"]]
    with pytest.raises(ImagoError, match="48 numbers, the predictions' 10"):
        compare(everyday().iloc[:100], current, CONFIG)


def test_a_missing_column_is_named() -> None:
    with pytest.raises(ImagoError, match="predictions lack the columns red, label"):
        compare(everyday().iloc[:100], everyday().drop(columns=["red", "label"]), CONFIG)


def test_constant_and_missing_numbers_do_no_harm() -> None:
    reference, current = everyday().iloc[:100].copy(), everyday().iloc[100:300].copy()
    reference["blue"], current["blue"] = 0.5, 0.5
    reference["red"] = np.nan
    current.loc[current.index[:20], "green"] = np.nan
    report = compare(reference, current, CONFIG)
    assert report.verdict == "stable"
    assert "red" not in {test.name for test in report.tests}


def stored(rows: pd.DataFrame, *, version: str, hour: int, model: str = "moths") -> list[dict]:
    """Rows as the endpoint writes them, minute by minute within an hour of a day."""
    return [
        {
            **row,
            "prediction_id": f"{model}-{version}-{hour}-{index}",
            "time": f"2026-01-02T{hour:02d}:{index // 60:02d}:{index % 60:02d}.000000+00:00",
            "model": model,
            "version": version,
            "rejected": False,
        }
        for index, row in enumerate(rows.to_dict("records"))
    ]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    """A package whose reference is of everyday pictures."""
    package = make_package(tmp_path_factory.mktemp("packages") / "moths")
    pq.write_table(to_table(stored(everyday().iloc[:100], version="reference", hour=0)), package.reference)
    return package


NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def test_detect_looks_at_the_window_and_at_the_version_that_answered_last(
    package: ModelPackage, tmp_path: Path
) -> None:
    store = PredictionStore(tmp_path / "predictions.sqlite")
    dark = table([(picture * 0.4).astype(np.uint8) for picture in moths()[300:400]])
    store.add(stored(dark, version="1", hour=8))
    store.add(stored(everyday().iloc[100:300], version="2", hour=10))
    store.add(stored(dark, version="9", hour=11, model="another"))
    store.add(stored(dark, version="2", hour=3))
    config = MonitoringConfig(window_hours=6)
    report = detect(package, store.path, config, now=NOON)
    assert (report.verdict, report.window.count) == ("stable", 200)
    assert detect(package, store.path, config, version="1", now=NOON).verdict == "drifted"
    assert detect(package, store.path, MonitoringConfig(window_hours=24), now=NOON).window.count == 300


def test_detect_on_a_store_that_is_not_there_is_not_enough_data(package: ModelPackage, tmp_path: Path) -> None:
    report = detect(package, tmp_path / "absent.sqlite", CONFIG, now=NOON)
    assert (report.verdict, report.window.count) == ("not_enough_data", 0)
    assert not (tmp_path / "absent.sqlite").exists()
