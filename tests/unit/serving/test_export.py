"""A package answers as the model it was made of does, and appears whole or not at all."""

import errno
import json
import math
import shutil
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pyarrow.parquet as pq
import pytest
import torch

from imago.config import ModelConfig, TrainingConfig
from imago.errors import ImagoError
from imago.evaluation.calibration import softmax
from imago.history import EpochResult
from imago.monitoring.prediction_store import COLUMNS
from imago.serving import export
from imago.serving.card import model_card
from imago.serving.export import PARITY, export_package, load_module
from imago.serving.graph import write_head
from imago.serving.package import FILES, ModelPackage, ModelSpec
from imago.serving.runtime import Prediction, Runtime
from imago.training.module import ClassifierModule
from imago.training.recipe import recipe_for
from imago.training.trainer import TrainedModel, train
from tests.unit.training.moths import ARCHITECTURE, SIZE, Silence, small_moths

MOTHS = small_moths(species=3)
TRAINING = TrainingConfig(epochs=3, batch_size=8)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrainedModel]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield train(
        MOTHS,
        ModelConfig(architecture=ARCHITECTURE, weights="none"),
        TRAINING,
        image_size=SIZE,
        seed=0,
        workdir=tmp_path_factory.mktemp("work"),
        reporter=Silence(),
    )
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def package(trained: TrainedModel, tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    path = tmp_path_factory.mktemp("packages") / "new" / "moths"
    return export_package(trained, MOTHS, path, name="moths", weights="none", seed=0, training=TRAINING)


@pytest.fixture
def made_before(package: ModelPackage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the graph of the module's package for every other, which saves the seconds of making one."""
    monkeypatch.setattr(export, "write_graph", lambda _model, _size, path: shutil.copy(package.onnx, path))


def _pixels(package: ModelPackage) -> np.ndarray:
    runtime, part = Runtime(package), MOTHS.split("test")
    return np.stack([runtime.preprocess(part.image(index)) for index in range(len(part))])


def test_the_folder_is_whole_and_holds_no_pickle(package: ModelPackage) -> None:
    files = sorted(path.relative_to(package.path).as_posix() for path in package.path.rglob("*") if path.is_file())
    pictures = [f"golden/{sample.file}" for sample in package.golden]
    assert files == sorted([*FILES, *pictures])
    assert [path.name for path in package.path.parent.iterdir()] == ["moths"]


def test_lightning_and_the_graph_agree_on_probabilities(package: ModelPackage, trained: TrainedModel) -> None:
    training = TrainingConfig()
    recipe = recipe_for(training, pretrained=False, image_size=SIZE)
    module = ClassifierModule(trained.model, training, recipe, labels=range(len(trained.classes))).eval()
    pixels = _pixels(package)
    with torch.inference_mode():
        expected = softmax(module(torch.from_numpy(pixels)).numpy(), trained.temperature)
    assert np.abs(Runtime(package).predict_array(pixels)[0] - expected).max() <= PARITY


def test_the_graph_takes_any_number_of_pictures(package: ModelPackage) -> None:
    session = onnxruntime.InferenceSession(package.onnx)
    assert [(value.name, value.shape) for value in session.get_inputs()] == [("image", ["batch", 3, SIZE, SIZE])]
    pixels = _pixels(package)[:5]
    together = session.run(["logits", "embedding"], {"image": pixels})
    alone = [session.run(["logits", "embedding"], {"image": pixels[index : index + 1]}) for index in range(5)]
    for position, shape in enumerate([(5, 3), (5, 256)]):
        assert together[position].shape == shape
        assert np.allclose(together[position], np.concatenate([row[position] for row in alone]), atol=1e-5)


def test_the_embedding_is_what_the_head_saw(package: ModelPackage, trained: TrainedModel) -> None:
    session = onnxruntime.InferenceSession(package.onnx)
    logits, embedding = session.run(["logits", "embedding"], {"image": _pixels(package)})
    head = trained.model.get_classifier()
    with torch.inference_mode():
        assert np.allclose(head(torch.from_numpy(embedding)).numpy(), logits, atol=1e-4)


def test_weights_come_back_into_torch_as_they_were(package: ModelPackage, trained: TrainedModel) -> None:
    state = load_module(package).state_dict()
    assert state.keys() == trained.model.state_dict().keys()
    assert all(torch.equal(value, state[name]) for name, value in trained.model.state_dict().items())


def test_weights_of_another_size_are_refused_by_name(package: ModelPackage, tmp_path: Path) -> None:
    shutil.copytree(package.path, tmp_path / "copy")
    spec = package.spec.model_copy(update={"classes": ("a", "b")})
    (tmp_path / "copy" / "spec.json").write_text(spec.model_dump_json())
    with pytest.raises(ImagoError, match=rf"weights\.safetensors are not a whole '{ARCHITECTURE}'"):
        load_module(ModelPackage(tmp_path / "copy"))


def test_the_spec_says_what_it_was_made_of(package: ModelPackage, trained: TrainedModel) -> None:
    spec = package.spec
    assert (spec.name, spec.architecture, spec.weights, spec.seed) == ("moths", ARCHITECTURE, "none", 0)
    assert spec.classes == MOTHS.classes
    assert spec.dataset_fingerprint == MOTHS.fingerprint
    assert spec.temperature == trained.temperature
    best = trained.best
    figures = {"val_accuracy": best.val_accuracy, "val_loss": best.val_loss, "best_epoch": best.epoch}
    assert spec.metrics == {**figures, "epochs": trained.history[-1].epoch}
    assert {"torch", "timm", "onnxruntime", "python", "imago"} == spec.versions.keys()


def test_golden_samples_are_test_pictures_of_every_class_and_answered_as_written(package: ModelPackage) -> None:
    part = MOTHS.split("test")
    label_of = {part.image(index): part.labels[index] for index in range(len(part))}
    pictures = [(package.path / "golden" / sample.file).read_bytes() for sample in package.golden]
    assert len(pictures) == 8
    assert {label_of[picture] for picture in pictures} == set(MOTHS.classes)
    for sample, answer in zip(package.golden, Runtime(package).predict(pictures), strict=True):
        assert isinstance(answer, Prediction)
        assert answer.label == sample.label
        assert answer.probability == pytest.approx(sample.probability, abs=1e-6)


def test_the_reference_is_the_validation_pictures_as_the_endpoint_would_keep_them(package: ModelPackage) -> None:
    table, part = pq.read_table(package.reference), MOTHS.split("val")
    assert tuple(table.column_names) == COLUMNS
    assert table.column("feedback").to_pylist() == part.labels
    expected = Runtime(package).probabilities([part.image(index) for index in range(len(part))])
    assert table.column("probability").to_pylist() == pytest.approx(expected.max(axis=1).tolist(), abs=1e-6)
    assert {len(row) for row in table.column("embedding").to_pylist()} == {256}


def test_the_card_counts_the_pictures(package: ModelPackage) -> None:
    assert f"| {MOTHS.classes[0]} | 12 | 4 | 4 |" in package.card
    assert f"`{ARCHITECTURE}`" in package.card


def test_the_card_says_what_training_spent_and_whose_weights_it_began_with(
    trained: TrainedModel, package: ModelPackage
) -> None:
    assert trained.spent is not None
    assert package.spec.spent == trained.spent
    assert f"| training took | {trained.spent.time()} |" in package.card
    assert f"| energy and carbon | {trained.spent.estimate()} |" in package.card
    assert "12 W a core (training.watts_per_core)" in package.card
    assert "| licence of those weights | there are none |" in package.card


def test_the_card_holds_the_recipe_with_nothing_left_open(package: ModelPackage) -> None:
    assert package.spec.recipe == {
        "epochs": 3, "batch_size": 8, "train_size": f"{SIZE}, {SIZE}, {SIZE}", "learning_rate": 4e-3,
        "head_learning_rate": 4e-3, "weight_decay": 0.05, "label_smoothing": 0.1,
        "augment": "smallest_crop 0.6, stretch 1.333, degrees 15, colour 0.2", "clip_norm": 5.0,
        "precision": "bf16-mixed" if torch.cuda.is_available() else "32-true",
    }  # fmt: skip
    recipe = package.card.partition("## Training")[2]
    assert "| learning_rate | 0.004 |" in recipe
    assert "| augment | smallest_crop 0.6, stretch 1.333, degrees 15, colour 0.2 |" in recipe
    assert "mixup" not in recipe


@pytest.mark.usefixtures("made_before")
def test_the_recipe_names_what_only_some_trainings_have(trained: TrainedModel, tmp_path: Path) -> None:
    assert trained.recipe is not None
    other = replace(trained, recipe=replace(trained.recipe, layer_decay=0.9, precision="16-mixed"))
    training = TRAINING.model_copy(update={"devices": 2, "nodes": 3})
    made = export_package(other, MOTHS, tmp_path / "moths", name="moths", weights="none", seed=0, training=training)
    told = {key: made.spec.recipe[key] for key in ("layer_decay", "precision", "devices", "nodes")}
    assert told == {"layer_decay": 0.9, "precision": "16-mixed", "devices": 2, "nodes": 3}


def test_the_card_says_what_limits_the_use(package: ModelPackage) -> None:
    limits = package.card.partition("## Limits of use")[2].partition("## Pictures")[0]
    assert f"one of its {len(MOTHS.classes)} classes, whatever a picture shows" in limits
    assert f"at {SIZE}×{SIZE} pixels" in limits
    assert "fewest" not in limits  # of all there are as many
    counts = {label: {"train": 9, "test": 5} for label in MOTHS.classes[1:]}
    scarce = model_card(package.spec.model_copy(update={"weights": "hub", "weights_license": "not stated"}), counts)
    assert f"fewest pictures of {MOTHS.classes[0]} (0)," in scarce
    assert f"Nobody knows how it does on {MOTHS.classes[0]}: no test picture shows it." in scarce
    assert "licence of the weights that it began with is not stated" in scarce


def test_the_card_says_from_which_probability_on_it_answers(package: ModelPackage) -> None:
    cards = {
        threshold: model_card(package.spec.model_copy(update={"reject_threshold": threshold}), {})
        for threshold in (0.0, 0.25)
    }
    assert "whatever a picture shows; answers below a probability of 0.250 are rejected." in cards[0.25]
    assert "| answers are rejected below | 0.250 |" in cards[0.25]
    assert "whatever a picture shows; it never withholds an answer." in cards[0.0]
    assert "| answers are rejected below | nothing |" in cards[0.0]


def test_the_package_keeps_every_epoch_and_the_card_lists_them(trained: TrainedModel, package: ModelPackage) -> None:
    assert package.spec.history == trained.history
    assert [result.epoch for result in package.spec.history] == [1, 2, 3]
    last = trained.history[-1]
    assert f"| 3 | {last.train_loss:.3f} | {last.val_loss:.3f} | {last.val_accuracy:.3f} |" in package.card


def test_an_epoch_whose_loss_is_no_number_can_be_kept(package: ModelPackage) -> None:
    broken = EpochResult(4, float("nan"), float("inf"), 0.2, 3.0)
    text = package.spec.model_copy(update={"history": (broken,)}).model_dump_json()
    assert json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    (read,) = ModelSpec.model_validate_json(text).history
    assert math.isnan(read.train_loss)
    assert math.isinf(read.val_loss)


def test_a_package_is_never_overwritten(package: ModelPackage, trained: TrainedModel) -> None:
    before = package.fingerprint
    with pytest.raises(ImagoError, match="exists already"):
        export_package(trained, MOTHS, package.path, name="other", weights="none", seed=1)
    assert ModelPackage(package.path).fingerprint == before


def test_a_full_disk_leaves_nothing_behind(
    trained: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(export, "write_graph", full)
    with pytest.raises(ImagoError, match=r"moths cannot be written: No space left on device\. Nothing of it was kept"):
        export_package(trained, MOTHS, tmp_path / "moths", name="moths", weights="none", seed=0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("made_before")
def test_an_interruption_leaves_nothing_behind(
    trained: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(export, "_write_golden", stop)
    with pytest.raises(KeyboardInterrupt):
        export_package(trained, MOTHS, tmp_path / "moths", name="moths", weights="none", seed=0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("made_before")
def test_a_graph_that_answers_unlike_its_model_is_refused(trained: TrainedModel, tmp_path: Path) -> None:
    changed = _turned(trained)
    with pytest.raises(
        ImagoError, match=r"answers unlike the model it was made of: probabilities differ by up to 0\.\d"
    ):
        export_package(changed, MOTHS, tmp_path / "moths", name="moths", weights="none", seed=0)
    assert list(tmp_path.iterdir()) == []


def test_a_head_that_answers_unlike_its_model_is_refused(
    trained: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    larger = replace(trained, preprocessing=trained.preprocessing.model_copy(update={"image_size": 128}))
    made = export_package(larger, MOTHS, tmp_path / "moths", name="moths", weights="none", seed=0)
    session = onnxruntime.InferenceSession(made.onnx)
    assert [(value.name, value.shape[2:]) for value in session.get_outputs()][2:] == [("maps", [16])]
    assert made.head.is_file()
    assert made.spec.maps_lean
    turned = _turned(larger).model
    monkeypatch.setattr(export, "write_graph", lambda _model, _size, path: shutil.copy(made.onnx, path))
    monkeypatch.setattr(export, "write_head", lambda _model, size, path: write_head(turned, size, path))
    with pytest.raises(ImagoError, match=r"answers unlike the model it was made of"):
        export_package(larger, MOTHS, tmp_path / "other", name="moths", weights="none", seed=0)


def _turned(trained: TrainedModel) -> TrainedModel:
    """Return the trained model with the classes of its head turned round."""
    model = deepcopy(trained.model)
    head = model.get_classifier()
    with torch.no_grad():
        head.weight.copy_(head.weight.flip(0) * 3)
        head.bias.copy_(head.bias.flip(0))
    return replace(trained, model=model)


def test_export_says_nothing(trained: TrainedModel, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    export_package(trained, MOTHS, tmp_path / "moths", name="moths", weights="none", seed=0)
    assert capfd.readouterr() == ("", "")
