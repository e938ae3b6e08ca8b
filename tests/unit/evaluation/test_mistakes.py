import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imago.config import EvaluationConfig, ModelConfig, TrainingConfig
from imago.data.dataset import ImageDataset
from imago.evaluation.evaluate import evaluate
from imago.evaluation.mistakes import confused_pairs, worst_mistakes
from imago.serving.export import export_package
from imago.serving.package import ModelPackage
from imago.serving.runtime import Runtime
from imago.training.trainer import train
from tests.packages import CLASSES, colour_dataset, colour_of, make_package
from tests.unit.training.moths import ARCHITECTURE, SIZE, Silence, small_moths

QUICK = EvaluationConfig(bootstrap_samples=0, robustness=False)


def mean_colour(data_uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data_uri.partition(",")[2])))).mean((0, 1))


@pytest.fixture(scope="module")
def undertaught(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelPackage, ImageDataset]:
    """A real network that saw its pictures once."""
    place, moths = tmp_path_factory.mktemp("undertaught"), small_moths(species=6, train=4)
    trained = train(
        moths,
        ModelConfig(architecture=ARCHITECTURE, weights="none"),
        TrainingConfig(epochs=1, batch_size=8),
        image_size=SIZE,
        seed=0,
        workdir=place / "work",
        reporter=Silence(),
    )
    return export_package(trained, moths, place / "package", name="moths", weights="none", seed=0), moths


def test_every_mistake_of_a_torch_model_has_a_map_of_class_activation(
    undertaught: tuple[ModelPackage, ImageDataset],
) -> None:
    package, moths = undertaught
    report = evaluate(package, moths, QUICK, seed=0)
    gallery = worst_mistakes(report.predictions, moths.split("test"), Runtime(package))
    assert len(gallery.mistakes) == report.predictions.column("correct").to_pylist().count(False) > 4
    assert (gallery.method, gallery.reason) == ("class_activation", "")
    assert all(mistake.heat and mistake.heat != mistake.thumbnail for mistake in gallery.mistakes)
    sureness = [mistake.probability for mistake in gallery.mistakes]
    assert sureness == sorted(sureness, reverse=True)
    assert "found by class activation" in report.html


def test_where_no_torch_model_is_to_be_had_the_first_few_have_occlusion_maps(tmp_path: Path) -> None:
    dataset, package = colour_dataset(mislabelled=6), make_package(tmp_path / "package")
    report = evaluate(package, dataset, QUICK, seed=0)
    gallery = worst_mistakes(report.predictions, dataset.split("test"), Runtime(package))
    assert [mistake.heat is not None for mistake in gallery.mistakes] == [True] * 4 + [False] * 2
    assert gallery.method == "occlusion"
    assert "mean_colour" in gallery.reason


def test_a_confused_pair_shows_what_was_confused_beside_one_that_really_is(tmp_path: Path) -> None:
    dataset, package = colour_dataset(mislabelled=2), make_package(tmp_path / "package")
    report = evaluate(package, dataset, QUICK, seed=0)
    (pair,) = confused_pairs(report.metrics, report.predictions, dataset.split("test"))
    assert (pair.shown, pair.answered, pair.times) == ("blue", "green", 2)
    assert pair.genuine is not None
    for shown in (pair.confused, pair.genuine):
        assert np.abs(mean_colour(shown) - colour_of("green")).max() < 20
    assert pair.confused != pair.genuine


def test_a_confused_pair_whose_answer_no_test_picture_shows_stands_alone(tmp_path: Path) -> None:
    package = make_package(tmp_path / "package", confused=True)
    whole = colour_dataset(test=3)
    others = whole.without([identity for identity in whole.ids if identity.startswith(f"test/{CLASSES[0]}")])
    report = evaluate(package, others, QUICK, seed=0)
    pairs = confused_pairs(report.metrics, report.predictions, others.split("test"))
    assert {pair.answered: pair.genuine is None for pair in pairs} == {CLASSES[0]: True, CLASSES[2]: False}
