"""Whose behaviour is tested: a model and test pictures of the user's own, or a small one trained for the session.

`pytest tests/model --model PACKAGE_FOLDER_OR_MODEL_NAME --data SOURCE` takes the user's own.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cli.production import production_package
from imago.config import DataConfig, ModelConfig, SyntheticConfig, TrainingConfig
from imago.data.dataset import ImageDataset
from imago.data.sources import load_dataset
from imago.data.synthetic import SPECIES, synthetic_dataset
from imago.data.transforms import RGB, UnreadablePicture, decode, normalise, resize_to_square
from imago.errors import ImagoError, some_of
from imago.serving.export import export_package
from imago.serving.package import ModelPackage
from imago.serving.runtime import BATCH, Runtime
from imago.training.trainer import train
from tests.unit.training.moths import Silence

MOST = 500  # test pictures, drawn by the seed
NAMED = 8  # of those that are left out
SEED = 0
SMALL = SyntheticConfig(species=3, per_class_train=48, per_class_val=8, per_class_test=24)
SMALL_SIZE = 48  # pixels
_PACKAGE = pytest.StashKey[ModelPackage | None]()


@dataclass(frozen=True)
class Subject:
    """A model, and the test pictures that it is asked."""

    runtime: Runtime
    test: ImageDataset

    @cached_property
    def labels(self) -> np.ndarray:
        return np.array(self.test.labels, dtype=object)

    @cached_property
    def pictures(self) -> list[RGB]:
        """What the model sees of the test pictures: (S, S, 3) uint8 each."""
        size = self.runtime.spec.preprocessing.image_size
        return [resize_to_square(decode(self.test.image(row)), size) for row in range(len(self.test))]

    @cached_property
    def untouched(self) -> np.ndarray:
        return self.probabilities(lambda picture: picture)

    def probabilities(self, change: Callable[[RGB], RGB]) -> np.ndarray:
        """Ask for every picture after a change of it: (N, C)."""
        found = []
        for start in range(0, len(self.pictures), BATCH):
            seen = [change(picture) for picture in self.pictures[start : start + BATCH]]
            batch = np.stack([normalise(picture, self.runtime.spec.preprocessing) for picture in seen])
            found.append(self.runtime.predict_array(batch)[0])
        return np.concatenate(found)

    def answers(self, probabilities: np.ndarray) -> np.ndarray:
        return np.array(self.runtime.classes, dtype=object)[probabilities.argmax(axis=1)]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("model", "the behaviour of a model (tests/model)")
    group.addoption("--model", metavar="FOLDER_OR_NAME", help="a package's folder, or a model that is in production")
    group.addoption("--data", metavar="SOURCE", help="pictures whose test split it is asked, as for `run.py --data`")


def pytest_configure(config: pytest.Config) -> None:
    """Refuse options that cannot be followed before anything is collected."""
    _named_package(config)


def pytest_generate_tests(metafunc: Any) -> None:
    """Make each class a case of its own, so that a failure names it."""
    if "label" in metafunc.fixturenames:
        package = _named_package(metafunc.config)
        classes = package.spec.classes if package else SPECIES[: SMALL.species]
        metafunc.parametrize("label", classes)


@pytest.fixture(scope="session")
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    package = _named_package(request.config)
    if package is not None:
        test = load_dataset(DataConfig(source=request.config.getoption("--data")), SEED).split("test")
        return Subject(Runtime(package), _drawn(_known(test, package.spec.classes)))
    moths = synthetic_dataset(SMALL, SMALL_SIZE, SEED)
    return Subject(Runtime(_small_model(moths, tmp_path_factory.mktemp("model"))), moths.split("test"))


def _known(test: ImageDataset, classes: tuple[str, ...]) -> ImageDataset:
    """Leave out pictures of classes that the model does not know, with a warning that names these."""
    strange = sorted(set(test.labels) - set(classes))
    if not strange:
        return test
    known = test.without([name for name, label in zip(test.ids, test.labels, strict=True) if label in strange])
    text = f"{len(test) - len(known)} of {len(test)} test pictures are left out: the model does not know "
    warnings.warn(pytest.PytestWarning(f"{text}{some_of(strange, most=NAMED)}."), stacklevel=2)
    if not len(known):
        pytest.fail("--data: no test picture shows a class that the model knows.", pytrace=False)
    return known


def _drawn(test: ImageDataset) -> ImageDataset:
    """Draw some of the pictures, and leave out those that cannot be decoded, with a warning that names them."""
    drawn = {test.ids[row] for row in np.random.default_rng(SEED).permutation(len(test))[:MOST]}
    unreadable = [name for row, name in enumerate(test.ids) if name in drawn and not _decodable(test.image(row))]
    if unreadable:
        text = f"{len(unreadable)} of {len(drawn)} test pictures cannot be decoded and are left out: "
        warnings.warn(pytest.PytestWarning(f"{text}{some_of(unreadable, most=NAMED)}."), stacklevel=2)
    if len(unreadable) == len(drawn):
        pytest.fail("--data: there is no test picture that can be decoded.", pytrace=False)
    return test.without(set(test.ids) - drawn | set(unreadable))


def _decodable(image: bytes) -> bool:
    try:
        decode(image)
    except UnreadablePicture:
        return False
    return True


def _small_model(moths: ImageDataset, place: Path) -> ModelPackage:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so small a network trains faster on one
    trained = train(
        moths,
        ModelConfig(architecture="test_resnet", weights="none"),
        TrainingConfig(epochs=6, batch_size=16),
        image_size=SMALL_SIZE,
        seed=SEED,
        workdir=place / "work",
        reporter=Silence(),
    )
    torch.set_num_threads(threads)
    return export_package(trained, moths, place / "package", name="moths", weights="none", seed=SEED)


def _named_package(config: pytest.Config) -> ModelPackage | None:
    """Return the package that `--model` names. The option is unknown where the whole suite is run."""
    if _PACKAGE not in config.stash:
        model, data = config.getoption("--model", None), config.getoption("--data", None)
        if (model is None) != (data is None):
            raise pytest.UsageError("--model and --data go together: the model, and the pictures it is asked.")
        try:
            found = _package(model) if model else None
        except ImagoError as error:
            raise pytest.UsageError(f"--model: {error}") from error
        config.stash[_PACKAGE] = found
    return config.stash[_PACKAGE]


def _package(folder_or_name: str) -> ModelPackage:
    package = (
        ModelPackage(Path(folder_or_name)) if Path(folder_or_name).is_dir() else production_package(folder_or_name)[0]
    )
    _ = package.spec  # it is whole, or says what it lacks
    return package
