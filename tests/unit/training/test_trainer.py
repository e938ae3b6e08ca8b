"""Training is repeatable, keeps the best, stops cleanly and says nothing that was not asked for."""

import math
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from imago.config import CONFIGS, ModelConfig, SyntheticConfig, TrainingConfig, load_config
from imago.data.dataset import ImageDataset
from imago.data.synthetic import synthetic_dataset
from imago.errors import ConfigError, DataRefused, ImagoError
from imago.history import EpochResult
from imago.serving.export import export_package
from imago.serving.runtime import Prediction, Runtime
from imago.training import trainer
from imago.training.datamodule import Batch
from imago.training.epochs import CHECKPOINT, has_stopped
from imago.training.module import ClassifierModule
from imago.training.recipe import at_once
from imago.training.trainer import TrainedModel, train
from tests.packages import picture_bytes
from tests.unit.training.moths import ARCHITECTURE, SIZE, Silence, picture_rows, small_moths

MOTHS = small_moths()


def _train(
    tmp_path: Path, weights: str = "none", *, seed: int = 0, dataset: ImageDataset = MOTHS, **options: object
) -> TrainedModel:
    return train(
        dataset,
        ModelConfig(architecture=ARCHITECTURE, weights=weights),
        TrainingConfig.model_validate({"epochs": 2, "batch_size": 8, **options}),
        image_size=SIZE,
        seed=seed,
        workdir=Path(mkdtemp(dir=tmp_path)),
        reporter=Silence(),
    )


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(5)
    path = tmp_path_factory.mktemp("weights") / "learned.safetensors"
    save_file(timm.create_model(ARCHITECTURE, num_classes=4).state_dict(), path)
    return str(path)


def _same(one: TrainedModel, other: TrainedModel) -> bool:
    states = one.model.state_dict(), other.model.state_dict()
    return all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_the_same_seed_trains_the_same_model_and_another_seed_another(tmp_path: Path) -> None:
    first, again, other = _train(tmp_path), _train(tmp_path), _train(tmp_path, seed=1)
    assert _same(first, again)
    assert first.temperature == again.temperature
    assert not _same(first, other)


def test_training_leaves_the_random_state_as_it_was(tmp_path: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    _train(tmp_path, epochs=1)
    assert torch.equal(torch.rand(2), expected)


def test_a_pretrained_backbone_gets_its_head_first(tmp_path: Path, learned: str) -> None:
    with_head, without = _train(tmp_path, learned), _train(tmp_path, learned, warmup_head=False)
    assert [result.epoch for result in with_head.history] == [0, 1, 2]
    assert [result.epoch for result in without.history] == [1, 2]


def test_the_best_on_validation_is_kept_the_head_alone_included(tmp_path: Path, learned: str) -> None:
    ruined = _train(tmp_path, learned, learning_rate=3.0)
    assert ruined.best == max(ruined.history, key=lambda result: (result.val_accuracy, -result.val_loss))
    assert ruined.best.epoch == 0
    assert torch.equal(ruined.model.conv_stem.weight, load_file(learned)["conv_stem.weight"])


def test_threshold_reaches_what_was_asked_for_on_the_validation_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = small_moths(species=4, train=20)
    val = dataset.split("val")
    images = [val.image(row) for row in range(len(val))]

    def fit(*, seed: int = 0, **options: float) -> tuple[float, np.ndarray, np.ndarray]:
        """Return the threshold, and which pictures the exported graph answers, and which it has right."""
        trained = _train(tmp_path, dataset=dataset, seed=seed, epochs=3, **options)
        place = Path(mkdtemp(dir=tmp_path)) / "model"
        package = export_package(trained, dataset, place, name="moths", weights="none", seed=0)
        answers = [answer for answer in Runtime(package).predict(images) if isinstance(answer, Prediction)]
        right = np.array([answer.label == label for answer, label in zip(answers, val.labels, strict=True)])
        return trained.reject_threshold, np.array([not answer.rejected for answer in answers]), right

    for seed in range(3):  # at an answer's own confidence float noise would decide, for one picture in two trainings
        _, stands, _ = fit(reject_coverage=0.5, seed=seed)
        assert stands.mean() == 0.5
    _, stands, right = fit(reject_error=0.1)
    assert (~right).mean() > 0.1
    assert stands.any()
    assert (~right[stands]).mean() <= 0.1
    monkeypatch.setattr("imago.training.confidence._COVERAGE", 0.5)
    assert fit()[0] == 0.5  # what is more likely than not stands where nothing was asked for


def test_every_epoch_is_told_of_with_its_own_figures(tmp_path: Path) -> None:
    told: list[EpochResult] = []
    reporter = Silence()
    trained = train(
        MOTHS,
        ModelConfig(architecture=ARCHITECTURE, weights="none"),
        TrainingConfig(epochs=3, batch_size=8),
        image_size=SIZE,
        seed=0,
        workdir=tmp_path,
        on_epoch=told.append,
        reporter=reporter,
    )
    assert told == list(trained.history) == reporter.epochs
    assert [result.epoch for result in told] == [1, 2, 3]
    assert all(0 < result.train_loss < 10 and 0 < result.val_loss < 10 for result in told)


def test_progress_is_told_in_pictures_with_every_step_s_loss(tmp_path: Path, learned: str) -> None:
    reporter = Silence()
    moths = small_moths(train=13)  # 26 pictures: two batches of seven and two of six
    trained = train(
        moths,
        ModelConfig(architecture=ARCHITECTURE, weights=learned),
        TrainingConfig(epochs=2, batch_size=8),
        image_size=SIZE,
        seed=0,
        workdir=tmp_path,
        reporter=reporter,
    )
    head, first, second = trained.history
    assert reporter.stretches == [
        ("features", 26 + 8, 0, None),
        ("epoch 1/2", 26, 1, head),
        ("epoch 2/2", 26, 0, first),
    ]
    assert reporter.counted == [34, 26, 26]
    assert [len(losses) for losses in reporter.losses] == [0, 4, 4]
    for losses, result in zip(reporter.losses[1:], (first, second), strict=True):
        assert sum(losses) / 4 == pytest.approx(result.train_loss)


def test_moths_of_two_species_are_learned_from_scratch(tmp_path: Path) -> None:
    trained = _train(tmp_path, dataset=small_moths(train=40), epochs=10)
    assert trained.best.val_accuracy >= 0.75
    assert trained.history[-1].train_loss < trained.history[0].train_loss


def test_one_class_only_is_refused(tmp_path: Path) -> None:
    lonely = MOTHS.without([name for name in MOTHS.ids if MOTHS.classes[0] in name])
    with pytest.raises(DataRefused, match="two classes or more; there are 1"):
        _train(tmp_path, dataset=lonely)


def test_a_loss_that_is_no_number_names_the_key_to_change(tmp_path: Path) -> None:
    with pytest.raises(ImagoError, match=r"no longer a number in step \d.*training\.learning_rate \(it is 1e\+30\)"):
        _train(tmp_path, learning_rate=1e30, epochs=4)


def test_a_training_that_went_astray_says_so(tmp_path: Path) -> None:
    told = Silence()
    options = {"epochs": 1, "batch_size": 8, "learning_rate": 1e5, "clip_norm": 0.0}
    train(
        MOTHS, ModelConfig(architecture=ARCHITECTURE, weights="none"), TrainingConfig.model_validate(options),
        image_size=SIZE, seed=0, workdir=tmp_path, reporter=told,
    )  # fmt: skip
    assert "far above that of a guess (" in told.stream.getvalue()


@pytest.fixture
def heard() -> Iterator[None]:
    """Let Ctrl-C be heard, which a shell's background job is deaf to from its birth."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heard")
def test_ctrl_c_comes_out_as_it_went_in_and_the_signal_works_again(tmp_path: Path) -> None:
    handler = signal.getsignal(signal.SIGINT)

    def interrupt(_: EpochResult) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(
            MOTHS,
            ModelConfig(architecture=ARCHITECTURE, weights="none"),
            TrainingConfig(epochs=3, batch_size=8),
            image_size=SIZE,
            seed=0,
            workdir=tmp_path,
            on_epoch=interrupt,
            reporter=Silence(),
        )
    assert signal.getsignal(signal.SIGINT) is handler
    assert list(tmp_path.iterdir()) == []


def test_training_is_silent_and_leaves_its_last_checkpoint_only(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    _train(tmp_path, epochs=1)
    assert capfd.readouterr() == ("", "")
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == [CHECKPOINT]


def test_a_pretrained_network_of_a_fixed_size_trains_at_it(tmp_path: Path) -> None:
    weights = tmp_path / "vit.safetensors"
    save_file(timm.create_model("test_vit3", num_classes=4).state_dict(), weights)
    moths = synthetic_dataset(
        SyntheticConfig(species=2, per_class_train=4, per_class_val=2, per_class_test=2), image_size=160, seed=0
    )

    def fit(**options: object) -> TrainedModel:
        return train(
            moths,
            ModelConfig(architecture="test_vit3", weights=str(weights)),
            TrainingConfig.model_validate({"epochs": 1, "batch_size": 4, **options}),
            image_size=160,
            seed=0,
            workdir=tmp_path,
            reporter=Silence(),
        )

    recipe = fit().recipe
    assert recipe is not None
    assert recipe.sizes == (160,)
    with pytest.raises(
        ConfigError, match=r"'test_vit3' does not take pictures of 96×96 pixels \(training.train_size\)"
    ):
        fit(train_size=96)


def test_no_epochs_is_the_head_alone_and_its_features_are_computed_once(
    tmp_path: Path, learned: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def probe() -> TrainedModel:
        return train(
            MOTHS,
            ModelConfig(architecture=ARCHITECTURE, weights=learned),
            TrainingConfig(epochs=0, batch_size=8),
            image_size=SIZE,
            seed=0,
            workdir=tmp_path / "work",
            reporter=Silence(),
            cache=tmp_path,
        )

    first = probe()
    assert [result.epoch for result in first.history] == [0]
    (stored,) = (tmp_path / "features").iterdir()
    monkeypatch.setattr("imago.training.features.compute_features", lambda *_, **__: pytest.fail("computed again"))
    assert _same(first, probe())
    monkeypatch.undo()
    stored.write_bytes(b"damaged")
    assert _same(first, probe())


def test_no_epochs_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"training\.epochs is 0.*pretrained weights"):
        _train(tmp_path, epochs=0)


def test_that_the_head_is_kept_is_said(tmp_path: Path, learned: str) -> None:
    reporter = Silence()
    training = TrainingConfig(epochs=1, batch_size=8, learning_rate=3.0)
    model = ModelConfig(architecture=ARCHITECTURE, weights=learned)
    train(MOTHS, model, training, image_size=SIZE, seed=0, workdir=tmp_path, reporter=reporter)
    assert "kept: the head on frozen features" in reporter.stream.getvalue()


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONFIGS / "experiments").glob("*.yaml")))
def test_every_experiment_trains(name: str, tmp_path: Path, learned: str) -> None:
    config = load_config(name, ["training.batch_size=8"])
    epochs = min(config.training.epochs, 2)
    sides = {"train_size": SIZE} if config.training.train_size else {}
    training = config.training.model_copy(update={"epochs": epochs, **sides})
    weights = "none" if config.model.weights == "none" else learned
    model = ModelConfig(architecture=ARCHITECTURE, weights=weights)
    trained = train(MOTHS, model, training, image_size=SIZE, seed=0, workdir=tmp_path, reporter=Silence())
    first = 0 if weights != "none" else 1
    assert [result.epoch for result in trained.history] == list(range(first, epochs + 1))
    assert all(math.isfinite(result.val_loss) for result in trained.history)


@pytest.mark.parametrize(
    "options",
    [
        {"mixup": 0.4, "cutmix": 1.0},
        {"rand_augment": "rand-m7-n2", "erasing": 0.5},
        {"balance": "sampling"},
        {"micro_batch_size": 4},
        {"ema_decay": 0.9},
        {"checkpoint_gradients": True},
    ],
)
def test_every_ingredient_is_repeatable_and_changes_the_weights(tmp_path: Path, options: dict[str, object]) -> None:
    first, again, plain = _train(tmp_path, **options), _train(tmp_path, **options), _train(tmp_path)
    assert _same(first, again)
    assert not _same(first, plain)  # activations computed twice are counted twice by batch norm's statistics


@pytest.mark.parametrize(("architecture", "left_out"), [("dla46x_c", True), (ARCHITECTURE, False)])
def test_gradients_are_not_checkpointed_where_timm_cannot(tmp_path: Path, architecture: str, left_out: bool) -> None:
    reporter = Silence()
    trained = train(
        MOTHS,
        ModelConfig(architecture=architecture, weights="none"),
        TrainingConfig(epochs=1, batch_size=8, checkpoint_gradients=True),
        image_size=SIZE,
        seed=0,
        workdir=tmp_path,
        reporter=reporter,
    )
    assert len(trained.history) == 1
    assert ("training.checkpoint_gradients is left out" in reporter.stream.getvalue()) == left_out


@pytest.mark.parametrize("options", [{}, {"ema_decay": 0.9}, {"balance": "loss"}, {"mixup": 0.4}])
def test_a_step_is_the_same_in_parts_as_at_once(tmp_path: Path, learned: str, options: dict[str, object]) -> None:
    moths = small_moths(train=9)  # 18 pictures: one batch of 10, and 8 left over
    shared = {"batch_size": 10, "freeze_batch_norm": True, "epochs": 3, **options}
    whole = _train(tmp_path, learned, dataset=moths, **shared)
    parts = _train(tmp_path, learned, dataset=moths, micro_batch_size=3, **shared)
    for one, other in zip(whole.history, parts.history, strict=True):
        assert one.train_loss == pytest.approx(other.train_loss, rel=1e-4)
        assert one.val_loss == pytest.approx(other.val_loss, rel=1e-4)
    mixed = _train(tmp_path, learned, dataset=moths, micro_batch_size=3, **shared | {"learning_rate": 1e-5})
    assert mixed.history[-1].val_loss != pytest.approx(parts.history[-1].val_loss, rel=1e-4)


def test_mixup_takes_part_in_an_odd_batch(tmp_path: Path) -> None:
    plain, mixed = (_train(tmp_path, batch_size=5, mixup=mixup) for mixup in (0.0, 1.0))
    assert not _same(plain, mixed)


def test_a_network_that_takes_one_size_only_trains_at_it_and_says_so(
    tmp_path: Path, learned: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def picky(_model: object, _architecture: str, size: int, key: str = "") -> None:
        raise ConfigError(f"does not take {size} pixels ({key})")

    monkeypatch.setattr(trainer, "try_out", picky)
    monkeypatch.setattr("imago.training.recipe._SEEN", 16)
    reporter = Silence()
    model = ModelConfig(architecture=ARCHITECTURE, weights=learned)
    settings = {"image_size": 64, "seed": 0, "reporter": reporter}
    training = TrainingConfig(epochs=2, batch_size=8)
    trained = train(MOTHS, model, training, workdir=tmp_path / "work", **settings)
    assert f"{ARCHITECTURE} takes pictures of 64 pixels only" in reporter.stream.getvalue()
    assert len(trained.history) == 3
    with pytest.raises(ConfigError, match="does not take 48 pixels"):
        train(MOTHS, model, training.model_copy(update={"train_size": 48}), workdir=tmp_path / "asked", **settings)


def test_training_stops_where_it_no_longer_gets_better(tmp_path: Path, learned: str) -> None:
    stopped = _train(tmp_path, learned, epochs=6, learning_rate=1.0, patience=2)
    assert len(stopped.history) < 7
    trained = [result.val_accuracy for result in stopped.history[1:]]
    assert max(trained) == trained[-3]
    assert max(trained[-2:]) <= trained[-3]


def test_patience_begins_with_the_first_epoch_however_good_the_head_alone_is() -> None:
    accuracies = (0.9, 0.5, 0.6, 0.6)
    head, one, two, three = (EpochResult(epoch, 1.0, 1.0, value, 0.0) for epoch, value in enumerate(accuracies))
    training = TrainingConfig(patience=1)
    assert not has_stopped([head], training)
    assert not has_stopped([head, one], training)
    assert not has_stopped([head, one, two], training)
    assert has_stopped([head, one, two, three], training)


def test_one_picture_of_each_class_is_enough_to_train(tmp_path: Path) -> None:
    row = ("train", "val")
    pictures = [(f"{split}/{label}", picture_bytes(label), label, split) for split in row for label in ("blue", "red")]
    trained = train(
        picture_rows(*pictures),
        ModelConfig(architecture="test_vit", weights="none"),
        TrainingConfig(epochs=3, augment=False, learning_rate=1e-2),
        image_size=SIZE,
        seed=0,
        workdir=tmp_path,
        reporter=Silence(),
    )
    assert trained.classes == ("blue", "red")
    assert trained.best.val_accuracy == 1.0


def test_an_unknown_policy_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"training\.rand_augment: 'wild'.*rand-m7-n2"):
        _train(tmp_path, rand_augment="wild")


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_too_little_memory_names_the_batch_to_try_or_takes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    step = ClassifierModule.training_step

    def greedy(self: ClassifierModule, batch: Batch, index: int) -> torch.Tensor:
        if at_once(self.training_config) > 4:
            raise error
        return step(self, batch, index)

    monkeypatch.setattr(ClassifierModule, "training_step", greedy)
    with pytest.raises(ImagoError, match=r"8 pictures at a time: set training\.micro_batch_size=4"):
        _train(tmp_path)
    assert [result.epoch for result in _train(tmp_path, auto_batch_size=True).history] == [1, 2]


@pytest.mark.parametrize("options", [{"batch_size": 1}, {"micro_batch_size": 1}])
def test_a_batch_norm_that_sees_one_value_says_what_to_do(tmp_path: Path, options: dict[str, object]) -> None:
    with pytest.raises(ImagoError, match=r"take two or more .*training\.freeze_batch_norm=true"):
        _train(tmp_path, epochs=1, **options)
    assert _train(tmp_path, epochs=1, freeze_batch_norm=True, **options).best.epoch == 1


@pytest.mark.parametrize("options", [{"batch_size": 2}, {"batch_size": 5, "micro_batch_size": 2}])
def test_an_odd_number_of_pictures_leaves_none_by_itself(tmp_path: Path, options: dict[str, object]) -> None:
    labels = ("blue", "red", "blue", "red", "blue")
    pictures = [
        (f"train/{label}/{number}", picture_bytes(label), label, "train") for number, label in enumerate(labels)
    ]
    pictures += [(f"val/{label}", picture_bytes(label), label, "val") for label in ("blue", "red")]
    assert _train(tmp_path, epochs=1, dataset=picture_rows(*pictures), **options).best.epoch == 1


def test_another_error_is_not_taken_for_too_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> torch.Tensor:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(ClassifierModule, "training_step", broken)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        _train(tmp_path, auto_batch_size=True)
