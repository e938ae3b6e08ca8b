"""The client and the endpoint speak the same language, over a real socket."""

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from imago.monitoring.prediction_store import PredictionStore
from imago.serving.client import Client, EndpointError, Prediction, Refused
from imago.serving.runtime import Prediction as Predicted
from imago.serving.runtime import Runtime
from imago.serving.settings import ServingSettings
from tests.endpoints import listening
from tests.packages import CLASSES, make_package, picture_bytes
from tests.unit.serving.malformed import BAD

KEY = "open-sesame"


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    return Runtime(make_package(tmp_path_factory.mktemp("package") / "colours"))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> PredictionStore:
    return PredictionStore(tmp_path_factory.mktemp("store") / "predictions.sqlite")


@pytest.fixture(scope="module")
def endpoint(runtime: Runtime, store: PredictionStore) -> Iterator[str]:
    settings = ServingSettings(predictions=store.path, top_k=2, api_key=KEY, max_upload_bytes=100_000, max_pictures=8)
    with listening(runtime, settings) as url:
        yield url


@pytest.fixture
def client(endpoint: str) -> Iterator[Client]:
    with Client(endpoint, KEY) as client:
        yield client


@pytest.mark.parametrize("label", CLASSES)
def test_a_prediction_is_that_of_the_package(client: Client, runtime: Runtime, label: str) -> None:
    picture = picture_bytes(label)
    (offline,) = runtime.predict([picture], top_k=2)
    assert isinstance(offline, Predicted)
    answer = client.predict(picture)
    assert [(one.label, one.probability) for one in answer.predictions] == list(offline.top)
    assert (answer.model.name, answer.model.version) == ("moths", "7")
    assert (answer.rejected, answer.reason) == (offline.rejected, offline.reason)


def test_a_batch_holds_files_and_bytes_and_what_cannot_be_read(client: Client, tmp_path: Path) -> None:
    (tmp_path / "blue.png").write_bytes(picture_bytes("blue"))
    red, text, blue = client.predict_batch([picture_bytes("red"), b"text", tmp_path / "blue.png"])
    assert isinstance(red, Prediction)
    assert isinstance(text, Refused)
    assert isinstance(blue, Prediction)
    assert (red.label, text.code, blue.label) == ("red", "not_a_picture", "blue")


def test_an_explanation_is_a_picture(client: Client) -> None:
    image = Image.open(io.BytesIO(client.explain(picture_bytes("red", size=(90, 60)))))
    assert (image.format, image.size) == ("PNG", (90, 60))


def test_feedback_reaches_its_prediction(client: Client, store: PredictionStore) -> None:
    answer = client.predict(picture_bytes("green", seed=5))
    client.feedback(answer.prediction_id, "blue")
    kept = {row["prediction_id"]: row["feedback"] for row in store.window(version="7").to_pylist()}
    assert kept[answer.prediction_id] == "blue"
    with pytest.raises(EndpointError, match="Did you mean 'blue'") as error:
        client.feedback(answer.prediction_id, "bleu")
    assert (error.value.status, error.value.code) == (400, "unknown_label")


def test_info_is_the_package_s(client: Client, runtime: Runtime) -> None:
    info = client.info()
    assert info.classes == runtime.classes
    assert info.fingerprint == runtime.package.fingerprint
    assert (info.limits.upload_bytes, info.feedback) == (100_000, True)


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_picture_is_an_error_with_its_code(client: Client, kind: str) -> None:
    make, status, code = BAD[kind]
    with pytest.raises(EndpointError) as error:
        client.predict(make())
    assert (error.value.status, error.value.code) == (status, code)
    assert error.value.request_id


def test_a_picture_over_the_limit_is_an_error_that_says_the_limit(client: Client) -> None:
    with pytest.raises(EndpointError, match="100,000 bytes") as error:
        client.predict(b"\xff" * 100_001)
    assert (error.value.status, error.value.code) == (413, "too_many_bytes")


@pytest.mark.parametrize(("key", "code"), [("", "no_key"), ("guessed", "wrong_key")])
def test_without_the_key_nothing_is_answered(endpoint: str, key: str, code: str) -> None:
    with Client(endpoint, key) as client, pytest.raises(EndpointError) as error:
        client.predict(picture_bytes("red"))
    assert (error.value.status, error.value.code) == (401, code)


def test_over_the_rate_the_client_waits_as_it_is_told(runtime: Runtime) -> None:
    with listening(runtime, ServingSettings(rate_limit=1.0)) as url:
        with Client(url, retries=3) as patient:
            assert [patient.info().top_k for _ in range(3)] == [3, 3, 3]
        with Client(url, retries=0) as hasty, pytest.raises(EndpointError) as error:
            [hasty.info() for _ in range(9)]
    assert (error.value.status, error.value.retry_after) == (429, 1.0)


def test_threads_share_a_client(client: Client) -> None:
    labels = [CLASSES[index % len(CLASSES)] for index in range(24)]
    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda label: client.predict(picture_bytes(label)).label, labels)
    assert list(answers) == labels


def test_nothing_that_listens_is_one_line(runtime: Runtime) -> None:
    with listening(runtime, ServingSettings()) as url:
        pass
    with Client(url) as client, pytest.raises(EndpointError, match=f"{url} cannot be reached: .*refused"):
        client.info()
