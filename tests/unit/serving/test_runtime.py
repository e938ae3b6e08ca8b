"""A package's graph answers the same however it is asked."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imago.data import transforms
from imago.data.features import FEATURES
from imago.data.transforms import UnreadablePicture
from imago.errors import ImagoError
from imago.evaluation.calibration import softmax
from imago.serving.package import ModelPackage
from imago.serving.runtime import BATCH, Prediction, Runtime, Unreadable
from tests.packages import CLASSES, make_package, picture, picture_bytes
from tests.unit.serving.malformed import BAD


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    return Runtime(make_package(tmp_path_factory.mktemp("package") / "colours"))


def test_the_golden_samples_are_answered_as_the_package_says(runtime: Runtime) -> None:
    golden = runtime.package.golden
    pictures = [(runtime.package.path / "golden" / sample.file).read_bytes() for sample in golden]
    for sample, answer in zip(golden, runtime.predict(pictures), strict=True):
        assert isinstance(answer, Prediction)
        assert answer.label == sample.label
        assert answer.probability == pytest.approx(sample.probability, abs=1e-5)


def test_preprocessing_is_the_training_sides_to_the_bit(runtime: Runtime) -> None:
    data = picture_bytes("red", size=(100, 77), kind="JPEG")
    expected = transforms.preprocess(transforms.decode(data), runtime.spec.preprocessing)
    assert np.array_equal(runtime.preprocess(data), expected)


def test_probabilities_are_the_softmax_of_the_tempered_logits(tmp_path: Path) -> None:
    cold = Runtime(make_package(tmp_path / "cold", temperature=1.0))
    warm = Runtime(make_package(tmp_path / "warm", temperature=2.0))
    images = [picture_bytes(label) for label in CLASSES]
    expected = np.sqrt(cold.probabilities(images).astype(np.float64))
    expected /= expected.sum(axis=1, keepdims=True)
    assert warm.probabilities(images) == pytest.approx(expected, abs=1e-5)


def test_a_picture_is_answered_alike_alone_and_in_company(runtime: Runtime) -> None:
    images = [picture_bytes(CLASSES[index % 3], seed=index) for index in range(BATCH + 5)]
    together = runtime.predict(images)
    alone = [runtime.predict([image])[0] for image in images]
    for one, other in zip(together, alone, strict=True):
        assert isinstance(one, Prediction)
        assert isinstance(other, Prediction)
        assert one.label == other.label
        assert one.probability == pytest.approx(other.probability, abs=1e-6)


def test_each_forward_pass_is_told_with_its_pictures_and_seconds(runtime: Runtime) -> None:
    told: list[tuple[int, float, float]] = []
    images = [b"text", *(picture_bytes("red", seed=index) for index in range(BATCH + 5))]
    runtime.predict(images, observe=lambda *what: told.append(what))
    assert [pictures for pictures, _, _ in told] == [BATCH - 1, 6]
    assert all(decode > 0 and forward > 0 for _, decode, forward in told)


def test_threads_change_no_answer(runtime: Runtime) -> None:
    images = [picture_bytes(CLASSES[index % 3], seed=index) for index in range(9)]
    threaded = Runtime(runtime.package, threads=2)
    assert threaded.probabilities(images) == pytest.approx(runtime.probabilities(images), abs=1e-6)
    labels = [answer.label for answer in threaded.predict(images) if isinstance(answer, Prediction)]
    assert labels == [CLASSES[index % 3] for index in range(9)]


def test_what_cannot_be_read_is_answered_in_its_place(runtime: Runtime) -> None:
    images = [picture_bytes("red"), b"text", BAD["truncated jpeg"][0](), picture_bytes("blue")]
    first, second, third, fourth = runtime.predict(images)
    assert isinstance(first, Prediction)
    assert isinstance(fourth, Prediction)
    assert isinstance(second, Unreadable)
    assert isinstance(third, Unreadable)
    assert (second.code, third.code) == ("not_a_picture", "undecodable")


def test_only_unreadable_pictures_and_none_at_all_are_answered(runtime: Runtime) -> None:
    assert runtime.predict([]) == []
    assert [type(answer) for answer in runtime.predict([b"", b"x"])] == [Unreadable, Unreadable]
    assert runtime.probabilities([]).shape == (0, 3)


def test_probabilities_do_not_skip_an_unreadable_picture(runtime: Runtime) -> None:
    with pytest.raises(UnreadablePicture):
        runtime.probabilities([picture_bytes("red"), b"text"])


def test_an_answer_remembers_the_picture(runtime: Runtime) -> None:
    (answer,) = runtime.predict([picture_bytes("green", size=(64, 40))], top_k=2)
    assert isinstance(answer, Prediction)
    assert (answer.width, answer.height) == (64, 40)
    assert tuple(answer.features) == FEATURES
    assert answer.features["green"] > answer.features["red"]
    assert (answer.embedding.shape, answer.embedding.dtype) == ((3,), np.float32)
    assert [label for label, _ in answer.top] == ["green", answer.top[1][0]]


def test_a_decoded_picture_is_answered_like_its_file(runtime: Runtime) -> None:
    sink = io.BytesIO()
    Image.fromarray(picture("blue")).save(sink, "PNG")
    (from_file,) = runtime.predict([sink.getvalue()])
    assert isinstance(from_file, Prediction)
    assert runtime.predict_picture(picture("blue")).top == from_file.top


def test_below_the_threshold_an_answer_is_rejected_with_its_reason(tmp_path: Path) -> None:
    unsure = Runtime(make_package(tmp_path / "unsure", sharpness=0.01, reject_threshold=0.8))
    (answer,) = unsure.predict([picture_bytes("red")])
    assert isinstance(answer, Prediction)
    assert answer.rejected
    assert answer.reason is not None
    assert "80%" in answer.reason


def test_a_broken_graph_is_named(tmp_path: Path) -> None:
    package = make_package(tmp_path / "broken")
    package.onnx.write_bytes(b"not a graph")
    with pytest.raises(ImagoError, match=r"model\.onnx cannot be loaded"):
        Runtime(package)


def test_a_graph_of_other_classes_is_refused(tmp_path: Path) -> None:
    package = make_package(tmp_path / "three")
    other = make_package(tmp_path / "two", ("red", "blue"))
    package.onnx.write_bytes(other.onnx.read_bytes())
    with pytest.raises(ImagoError, match="tells 2 classes apart, its spec 3"):
        Runtime(package)


def test_a_head_beside_a_graph_without_maps_is_refused(tmp_path: Path) -> None:
    package = make_package(tmp_path / "before")
    package.head.write_bytes(make_package(tmp_path / "mapped", maps=True).head.read_bytes())
    with pytest.raises(ImagoError, match=r"model\.onnx gives \['embedding', 'logits'\], not .* and `maps`"):
        Runtime(package)


def test_a_broken_head_is_named(tmp_path: Path) -> None:
    package = make_package(tmp_path / "broken", maps=True)
    package.head.write_bytes(b"not a graph")
    with pytest.raises(ImagoError, match=r"head\.onnx cannot be loaded"):
        Runtime(package)


def test_maps_change_no_answer(runtime: Runtime, tmp_path: Path) -> None:
    mapped = Runtime(make_package(tmp_path / "mapped", maps=True))
    images = [picture_bytes(label) for label in CLASSES]
    assert np.array_equal(mapped.probabilities(images), runtime.probabilities(images))
    batch = np.stack([mapped.preprocess(image) for image in images])
    logits = mapped.head(mapped.maps(batch).mean(axis=2))
    assert softmax(logits) == pytest.approx(mapped.predict_array(batch)[0], abs=1e-5)


def test_a_half_package_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImagoError, match="is not a model package"):
        Runtime(ModelPackage(tmp_path))
