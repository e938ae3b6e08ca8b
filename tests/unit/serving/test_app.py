"""The HTTP contract, asked of the application in this process."""

import asyncio
import io
import json
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from prometheus_client import CollectorRegistry
from starlette.testclient import TestClient

from imago.monitoring.prediction_store import PredictionStore
from imago.serving import about, feedback, key_file
from imago.serving.answers import Info
from imago.serving.app import HUNG_SECONDS, Application
from imago.serving.logs import Log
from imago.serving.metrics import STAGES, Metrics
from imago.serving.package import ModelPackage
from imago.serving.runtime import Runtime
from imago.serving.settings import PROBE_HEADER, ServingSettings
from tests.endpoints import application, over_sockets
from tests.packages import colour_of, make_package, picture_bytes
from tests.unit.serving.malformed import BAD, GOOD, photograph
from tests.waiting import until

Open = Callable[..., TestClient]
FORM = "multipart/form-data; boundary=b"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    return make_package(tmp_path_factory.mktemp("package") / "colours")


@pytest.fixture(scope="module")
def runtime(package: ModelPackage) -> Runtime:
    return Runtime(package)


@pytest.fixture
def store(tmp_path: Path) -> PredictionStore:
    return PredictionStore(tmp_path / "predictions.sqlite")


@pytest.fixture
def open_endpoint(runtime: Runtime, store: PredictionStore) -> Iterator[Open]:
    opened: list[Application] = []

    def open_one(**options: Any) -> TestClient:
        settings = ServingSettings(**{"predictions": store.path, **options})
        opened.append(Application(runtime, settings, Metrics(CollectorRegistry()), version="7"))
        return TestClient(opened[-1], raise_server_exceptions=True)

    yield open_one
    for one in opened:
        one.close()


@pytest.fixture
def endpoint(open_endpoint: Open) -> TestClient:
    return open_endpoint()


def predict(endpoint: TestClient, picture: bytes, **options: Any) -> Any:
    return endpoint.post("/predict", files={"image": ("moth.jpg", picture, "image/jpeg")}, **options)


def test_a_picture_is_answered_with_its_class(endpoint: TestClient) -> None:
    response = predict(endpoint, picture_bytes("green"))
    body = response.json()
    assert response.status_code == 200
    assert set(body) == {"prediction_id", "model", "predictions", "rejected", "reason"}
    assert body["model"] == {"name": "moths", "version": "7"}
    assert body["predictions"][0]["label"] == "green"
    shares = [one["probability"] for one in body["predictions"]]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(1, abs=1e-5)
    assert (body["rejected"], body["reason"]) == (False, None)


def test_top_k_and_version_are_the_deployers(open_endpoint: Open) -> None:
    body = predict(open_endpoint(top_k=2, version="2026-03"), picture_bytes("red")).json()
    assert len(body["predictions"]) == 2
    assert body["model"]["version"] == "2026-03"


def test_an_unsure_answer_says_so(tmp_path: Path) -> None:
    package = make_package(tmp_path / "unsure", sharpness=0.01, reject_threshold=0.9)
    application = Application(Runtime(package), ServingSettings(), Metrics(CollectorRegistry()), version="1")
    body = predict(TestClient(application), picture_bytes("red")).json()
    application.close()
    assert body["rejected"] is True
    assert "sure" in body["reason"]


@pytest.mark.parametrize("kind", GOOD)
def test_every_kind_of_picture_is_answered(endpoint: TestClient, kind: str) -> None:
    assert predict(endpoint, GOOD[kind]()).status_code == 200


@pytest.mark.parametrize("path", ["/predict", "/explain"])
@pytest.mark.parametrize("kind", BAD)
def test_every_broken_picture_is_refused_with_its_code(endpoint: TestClient, kind: str, path: str) -> None:
    make, status, code = BAD[kind]
    response = endpoint.post(path, files={"image": ("moth.jpg", make(), "image/jpeg")})
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    assert response.json()["error"]["message"].endswith(".")


def test_a_random_file_is_never_our_fault(endpoint: TestClient) -> None:
    rng = np.random.default_rng(3)
    for make in GOOD.values():
        picture = bytearray(make())
        for place in rng.integers(0, len(picture), 12):
            picture[place] = int(rng.integers(256))
        assert predict(endpoint, bytes(picture)).status_code in {200, 413, 415, 422}


def test_the_name_and_type_that_a_client_claims_do_not_matter(endpoint: TestClient) -> None:
    files = {"image": ("../../etc/passwd.txt", picture_bytes("blue"), "text/plain")}
    assert endpoint.post("/predict", files=files).json()["predictions"][0]["label"] == "blue"


def test_too_many_bytes_are_refused_before_they_are_read(open_endpoint: Open) -> None:
    endpoint = open_endpoint(max_upload_bytes=1000)
    for size in (1001, 60_000, 3_000_000):
        response = predict(endpoint, b"\xff" * size)
        assert (response.status_code, response.json()["error"]["code"]) == (413, "too_many_bytes")


def test_a_stream_without_length_is_bounded_too(open_endpoint: Open) -> None:
    endpoint = open_endpoint(max_upload_bytes=1000)
    sent = 0

    def body() -> Iterator[bytes]:
        nonlocal sent
        yield b'--b\r\nContent-Disposition: form-data; name="other"\r\n\r\n'
        for _ in range(10_000):
            sent += 1000
            yield b"x" * 1000

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    assert endpoint.post("/predict", content=body(), headers=headers).status_code == 413


def test_pixels_are_bounded_by_the_deployer(open_endpoint: Open) -> None:
    response = predict(open_endpoint(max_pixels=1000), picture_bytes("red", size=(40, 40)))
    assert (response.status_code, response.json()["error"]["code"]) == (413, "too_many_pixels")


@pytest.mark.parametrize(
    ("content", "kind", "status", "code"),
    [
        (b"", None, 400, "malformed"),
        (b"{}", "application/json", 415, "not_multipart"),
        (b"\xff\xd8\xff", "image/jpeg", 415, "not_multipart"),
        (b"image=1", "application/x-www-form-urlencoded", 415, "not_multipart"),
        (b"--b--\r\n", "multipart/form-data", 400, "malformed"),
        (b"--b--\r\n", FORM, 400, "missing_field"),
        (b"", FORM, 400, "malformed"),
        (b"nonsense", FORM, 400, "malformed"),
        (b"--b--\r\n", f"multipart/form-data; boundary={'b' * 500}", 400, "malformed"),
        (b'--b\r\nContent-Disposition: form-data; name="image"\r\n\r\nhalf', FORM, 400,
         "malformed"),
        (b"--b\r\n\r\nno header\r\n--b--\r\n", FORM, 400, "missing_field"),
        (b"--b\r\nContent-Disposition: form-data; name=\xff\xfe\r\n\r\nx\r\n--b--\r\n", FORM, 400, "missing_field"),
        (b"--b\r\n" + b"X-A: b\r\n" * 50 + b"\r\nx\r\n--b--\r\n", FORM, 400, "malformed"),
        (b"--b\r\nX-A: " + b"b" * 9000 + b"\r\n\r\nx\r\n--b--\r\n", FORM, 400, "malformed"),
    ],
)  # fmt: skip
def test_a_malformed_request_is_refused_with_its_code(
    endpoint: TestClient, content: bytes, kind: str | None, status: int, code: str
) -> None:
    headers = {"Content-Type": kind} if kind else {}
    response = endpoint.post("/predict", content=content, headers=headers)
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)


def test_a_field_of_another_name_is_told(endpoint: TestClient) -> None:
    response = endpoint.post("/predict", files={"picture": picture_bytes("red")})
    assert response.status_code == 400
    assert response.json()["error"]["message"] == "The form has no field `image`; it has 'picture'."


def test_several_pictures_are_for_the_batch(endpoint: TestClient) -> None:
    files = [("image", picture_bytes("red")), ("image", picture_bytes("blue"))]
    response = endpoint.post("/predict", files=files)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "too_many_pictures")


def test_other_fields_beside_the_picture_are_ignored(endpoint: TestClient) -> None:
    response = endpoint.post("/predict", files={"image": picture_bytes("red")}, data={"note": "seen at dusk"})
    assert response.status_code == 200


def test_a_batch_is_answered_in_order_and_one_broken_picture_spoils_no_other(endpoint: TestClient) -> None:
    pictures = [picture_bytes("red"), b"nothing", picture_bytes("blue")]
    body = endpoint.post("/predict_batch", files=[("images", one) for one in pictures]).json()
    first, second, third = body["results"]
    assert (first["predictions"][0]["label"], third["predictions"][0]["label"]) == ("red", "blue")
    assert second["error"]["code"] == "not_a_picture"
    assert first["prediction_id"] != third["prediction_id"]


def test_a_batch_has_a_bound(open_endpoint: Open) -> None:
    endpoint = open_endpoint(max_pictures=3)
    picture = picture_bytes("red")
    assert endpoint.post("/predict_batch", files=[("images", picture)] * 3).status_code == 200
    response = endpoint.post("/predict_batch", files=[("images", picture)] * 4)
    assert (response.status_code, response.json()["error"]["code"]) == (413, "too_many_pictures")


def test_an_explanation_is_a_picture_of_bounded_size(endpoint: TestClient) -> None:
    picture = io.BytesIO()
    photograph(900).save(picture, "JPEG")
    response = endpoint.post("/explain", files={"image": picture.getvalue()})
    assert (response.status_code, response.headers["content-type"]) == (200, "image/png")
    image = Image.open(io.BytesIO(response.content))
    assert image.format == "PNG"
    assert max(image.size) == 320
    assert image.size[0] > image.size[1]


@pytest.mark.parametrize(("maps", "method"), [(False, "occlusion"), (True, "class_activation")])
def test_an_explanation_says_how_it_was_found(tmp_path: Path, maps: bool, method: str) -> None:
    runtime = Runtime(make_package(tmp_path / "package", maps=maps))
    application = Application(runtime, ServingSettings(), Metrics(CollectorRegistry()), version="1")
    endpoint = TestClient(application)
    rgb = np.full((64, 64, 3), 127, dtype=np.uint8)
    rgb[40:60, 40:60] = colour_of("red")
    picture = io.BytesIO()
    Image.fromarray(rgb).save(picture, "PNG")
    response = endpoint.post("/explain", files={"image": picture.getvalue()})
    assert endpoint.get("/info").json()["heat_map"] == method
    application.close()
    changed = np.abs(np.asarray(Image.open(io.BytesIO(response.content))).astype(int) - rgb).sum(axis=2)
    assert changed[44:56, 44:56].mean() > 30
    assert changed[:24, :24].max() < 15


def test_feedback_is_kept_with_its_prediction(endpoint: TestClient, store: PredictionStore) -> None:
    asked = predict(endpoint, picture_bytes("green")).json()["prediction_id"]
    response = endpoint.post("/feedback", json={"prediction_id": asked, "label": "red"})
    assert (response.status_code, response.json()) == (200, {"prediction_id": asked, "label": "red"})
    (row,) = store.window().to_pylist()
    assert (row["prediction_id"], row["label"], row["feedback"]) == (asked, "green", "red")
    assert (row["model"], row["version"], row["width"], row["height"]) == ("moths", "7", 48, 40)
    assert len(row["embedding"]) == 3
    assert 0 < row["brightness"] < 1


def test_feedback_on_another_models_prediction_is_refused(endpoint: TestClient, store: PredictionStore) -> None:
    asked = predict(endpoint, picture_bytes("green")).json()["prediction_id"]
    assert endpoint.app.writer.flush()  # type: ignore[union-attr]
    with closing(sqlite3.connect(store.path)) as connection, connection:
        connection.execute("UPDATE predictions SET model = 'birds'")
    response = endpoint.post("/feedback", json={"prediction_id": asked, "label": "red"})
    assert (response.status_code, response.json()["error"]["code"]) == (404, "unknown_prediction")
    assert store.window().column("feedback").to_pylist() == [None]


def test_feedback_in_any_number_holds_up_nothing_else(
    runtime: Runtime, store: PredictionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    monkeypatch.setattr(PredictionStore, "feedback", lambda *_, **__: not gate.wait(30))
    told = {"prediction_id": "0" * 32, "label": "red"}
    with application(runtime, ServingSettings(predictions=store.path)) as app, over_sockets(app) as url:
        ask = partial(httpx.post, f"{url}/feedback", json=told, timeout=60, trust_env=False)
        with ThreadPoolExecutor(feedback.MAX_WAITING) as pool:
            asked = [pool.submit(ask) for _ in range(feedback.MAX_WAITING)]
            until(lambda: app.feedback.queue.waiting == feedback.MAX_WAITING, 20, "not all of them wait")
            refused = ask()
            others = [
                httpx.get(f"{url}/metrics", trust_env=False),
                httpx.post(f"{url}/predict", files={"image": picture_bytes("red")}, trust_env=False),
            ]
            gate.set()
            answers = {one.result().json()["error"]["code"] for one in asked}
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "overloaded")
    assert refused.headers["retry-after"] == "1"
    assert [one.status_code for one in others] == [200, 200]
    assert f'imago_queue_length{{queue="feedback"}} {feedback.MAX_WAITING}.0' in others[0].text
    assert answers == {"unknown_prediction"}


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ('{"prediction_id": "nobody", "label": "red"}', 404, "unknown_prediction"),
        ('{"prediction_id": "nobody", "label": "rde"}', 400, "unknown_label"),
        ('{"prediction_id": 5, "label": "red"}', 400, "malformed"),
        ('{"label": "red"}', 400, "malformed"),
        ("[]", 400, "malformed"),
        ("null", 400, "malformed"),
        ("{", 400, "malformed"),
        ("", 400, "malformed"),
        ("[" * 60_000, 400, "malformed"),
        ('"\\ud800"', 400, "malformed"),
        ('{"prediction_id": "\\ud800", "label": "red"}', 404, "unknown_prediction"),
        ('{"prediction_id": "\\u0000", "label": "\\ud800"}', 400, "unknown_label"),
        ('{"prediction_id": "' + "x" * 70_000 + '"}', 413, "too_many_bytes"),
    ],
)
def test_feedback_that_cannot_be_kept_is_refused(endpoint: TestClient, body: str, status: int, code: str) -> None:
    response = endpoint.post("/feedback", content=body, headers={"Content-Type": "application/json"})
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)


def test_feedback_takes_nothing_that_a_foreign_page_could_send_unasked(endpoint: TestClient) -> None:
    body = json.dumps({"prediction_id": "x", "label": "red"})
    response = endpoint.post("/feedback", content=body, headers={"Content-Type": "text/plain"})
    assert response.status_code == 415


def test_a_label_that_was_mistyped_is_answered_with_the_nearest(endpoint: TestClient) -> None:
    response = endpoint.post("/feedback", json={"prediction_id": "x", "label": "gren"})
    assert "Did you mean 'green'" in response.json()["error"]["message"]


def test_without_a_store_predictions_are_answered_and_feedback_is_not(open_endpoint: Open) -> None:
    endpoint = open_endpoint(predictions=None)
    asked = predict(endpoint, picture_bytes("red"))
    response = endpoint.post("/feedback", json={"prediction_id": asked.json()["prediction_id"], "label": "red"})
    assert (asked.status_code, response.status_code) == (200, 404)
    assert endpoint.get("/info").json()["feedback"] is False


def test_a_store_that_cannot_be_written_costs_no_answer(open_endpoint: Open, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    endpoint = open_endpoint(predictions=tmp_path / "folder")
    assert predict(endpoint, picture_bytes("red")).status_code == 200


@pytest.mark.parametrize("keys", [{"probe_key": "ours"}, {"api_key": "ours"}, {"api_key": "all", "probe_key": "ours"}])
def test_a_probe_is_answered_and_not_kept(open_endpoint: Open, store: PredictionStore, keys: dict[str, str]) -> None:
    endpoint = open_endpoint(**keys)
    endpoint.headers["X-API-Key"] = "ours"
    asked = predict(endpoint, picture_bytes("red"), headers={PROBE_HEADER: "golden"})
    kept = predict(endpoint, picture_bytes("red")).json()["prediction_id"]
    endpoint.post("/feedback", json={"prediction_id": kept, "label": "red"})
    assert asked.status_code == 200
    assert store.window().column("prediction_id").to_pylist() == [kept]


def test_who_only_says_to_be_a_probe_is_kept(
    open_endpoint: Open, store: PredictionStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGO_HOME", str(tmp_path / "home"))
    phone, picture = key_file.add("phone")[1], picture_bytes("red")
    bare, named = open_endpoint(), open_endpoint(probe_key="ours", keys=key_file.path())
    kept = [
        predict(bare, picture, headers={PROBE_HEADER: "golden"}),
        predict(bare, picture, headers={PROBE_HEADER: "golden", "X-API-Key": "ours"}),
        predict(named, picture, headers={PROBE_HEADER: "golden", "X-API-Key": phone}),
    ]
    for endpoint in (bare, named):
        assert endpoint.app.writer.flush()  # type: ignore[union-attr]
    assert sorted(store.window().column("prediction_id").to_pylist()) == sorted(
        one.json()["prediction_id"] for one in kept
    )


def test_without_the_key_nothing_is_answered(open_endpoint: Open) -> None:
    endpoint = open_endpoint(api_key="open sesame")
    picture = picture_bytes("red")
    for headers in ({}, {"X-API-Key": "open"}, {"Authorization": "Bearer "}, {"Authorization": "Basic open sesame"}):
        response = predict(endpoint, picture, headers=headers)
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
    assert endpoint.get("/info").status_code == 401
    assert endpoint.get("/nothing").status_code == 401
    assert predict(endpoint, picture, headers={"X-API-Key": "open sesame"}).status_code == 200
    assert predict(endpoint, picture, headers={"Authorization": "Bearer open sesame"}).status_code == 200
    assert [endpoint.get(path).status_code for path in ("/ui", "/ui/page.js", "/docs.json")] == [200, 200, 200]


def test_a_client_over_its_rate_is_told_when_to_come_back(open_endpoint: Open) -> None:
    endpoint = open_endpoint(rate_limit=0.5)
    first, second = endpoint.get("/info"), endpoint.get("/info")
    assert (first.status_code, second.status_code) == (200, 429)
    assert second.headers["retry-after"] == "2"
    assert second.json()["error"]["code"] == "too_many_requests"


def test_each_key_has_a_rate_of_its_own_wherever_it_comes_from(
    open_endpoint: Open, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("IMAGO_HOME", str(tmp_path / "home"))
    phone, farm = ({"X-API-Key": key_file.add(name)[1]} for name in ("phone", "farm"))
    endpoint = open_endpoint(rate_limit=0.001, keys=key_file.path())
    answers = [endpoint.get("/info", headers=headers).status_code for headers in (phone, phone, farm, farm)]
    assert answers == [200, 429, 200, 429]
    assert TestClient(endpoint.app, client=("10.0.0.9", 1)).get("/info", headers=phone).status_code == 429


def test_keys_cannot_be_tried_at_any_rate(open_endpoint: Open) -> None:
    endpoint = open_endpoint(rate_limit=0.001, api_key="open sesame")
    answers = [endpoint.get("/info", headers={"X-API-Key": str(number)}).status_code for number in range(3)]
    assert answers == [401, 429, 429]
    assert endpoint.get("/info", headers={"X-API-Key": "open sesame"}).status_code == 200


def test_where_all_places_are_taken_the_next_is_told_to_wait(open_endpoint: Open) -> None:
    endpoint = open_endpoint(max_waiting=1)
    with endpoint.app.queue.place():  # type: ignore[union-attr]
        response = predict(endpoint, picture_bytes("red"))
    assert (response.status_code, response.json()["error"]["code"]) == (503, "overloaded")
    assert response.headers["retry-after"] == "1"
    assert predict(endpoint, picture_bytes("red")).status_code == 200


def test_what_is_not_there_and_what_is_not_taken_have_the_same_shape(endpoint: TestClient) -> None:
    missing, wrong = endpoint.get("/nothing"), endpoint.get("/predict")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (405, "method_not_allowed")
    assert wrong.headers["allow"] == "POST"
    assert endpoint.get("/ui/../app.py").status_code == 404
    assert endpoint.get("/ui/%2e%2e%2fapp.py").status_code == 404


def test_our_own_fault_is_a_500_without_a_word_of_the_inside(
    open_endpoint: Open, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(runtime, "predict_array", fail)
    quiet = TestClient(open_endpoint().app, raise_server_exceptions=False)
    response = predict(quiet, picture_bytes("red"))
    assert (response.status_code, response.json()["error"]["code"]) == (500, "internal")
    assert "secret" not in response.text


def test_info_tells_the_model_and_the_limits(endpoint: TestClient, package: ModelPackage) -> None:
    info = endpoint.get("/info").json()
    assert info["model"] == {"name": "moths", "version": "7"}
    assert info["classes"] == ["blue", "green", "red"]
    assert info["fingerprint"] == package.fingerprint
    assert info["limits"]["upload_bytes"] == 10_000_000
    assert info["top_k"] == 3


def test_a_metric_that_is_no_number_is_null(tmp_path: Path) -> None:
    package = make_package(tmp_path / "package")
    spec = json.loads((package.path / "spec.json").read_text())
    spec["metrics"] = {"val_accuracy": 0.5, "val_loss": "NaN", "val_top5": "Infinity"}
    (package.path / "spec.json").write_text(json.dumps(spec))
    with application(Runtime(ModelPackage(package.path)), ServingSettings()) as app:
        response = TestClient(app).get("/info")
    assert response.status_code == 200
    assert response.json()["metrics"] == {"val_accuracy": 0.5, "val_loss": None, "val_top5": None}
    assert Info.model_validate_json(response.content).metrics["val_loss"] is None


def test_ready_is_who_predicts_and_what_does_not_work_meanwhile_is_said(
    open_endpoint: Open, runtime: Runtime, tmp_path: Path
) -> None:
    assert open_endpoint(api_key="open sesame").get("/readyz").json() == {"status": "ready", "degraded": []}
    (tmp_path / "folder").mkdir()
    settings = ServingSettings(predictions=tmp_path / "folder", rate_limit=1000.0, rates=tmp_path / "folder")
    log = Log(Path("/dev/full").open("w", buffering=1))  # noqa: SIM115
    metrics = Metrics(CollectorRegistry(), shared=False)
    app = Application(runtime, settings, metrics, version="7", log=log)
    endpoint, writer = TestClient(app), app.writer
    assert writer is not None
    writer.max_pending = 2
    for _ in range(3):
        assert predict(endpoint, picture_bytes("red")).status_code == 200
    assert not writer.flush()
    for _ in range(2):
        log.handle(logging.makeLogRecord({"msg": "a line"}))
    answer = endpoint.get("/readyz")
    said = {part["part"]: part["message"] for part in answer.json()["degraded"]}
    assert answer.status_code == 200
    assert list(said) == ["predictions", "log", "rate_limit", "metrics"]
    assert "2 wait in memory, 1 are lost" in said["predictions"]
    assert "2 lines are lost" in said["log"]
    text = endpoint.get("/metrics").text
    assert "imago_predictions_lost_total 1.0" in text
    assert "imago_log_lines_lost_total 2.0" in text
    app.close()


def test_where_predictions_hang_it_is_not_ready(endpoint: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    application: Any = endpoint.app
    begun = time.monotonic()
    monkeypatch.setattr(application.queue, "_begun", begun - HUNG_SECONDS + 30)
    assert endpoint.get("/readyz").status_code == 200
    monkeypatch.setattr(application.queue, "_begun", begun - HUNG_SECONDS)
    response = endpoint.get("/readyz")
    assert (response.status_code, response.json()["error"]["code"]) == (503, "not_ready")
    assert response.headers["retry-after"] == "10"


def test_feedback_of_a_prediction_that_waits_for_the_disk_is_asked_for_again(
    open_endpoint: Open, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    endpoint = open_endpoint(predictions=tmp_path / "folder")
    asked = predict(endpoint, picture_bytes("red")).json()["prediction_id"]
    response = endpoint.post("/feedback", json={"prediction_id": asked, "label": "red"})
    assert (response.status_code, response.json()["error"]["code"]) == (503, "not_kept")
    assert response.headers["retry-after"] == "10"


def test_metrics_count_by_route_and_by_nothing_a_client_chooses(endpoint: TestClient) -> None:
    predict(endpoint, picture_bytes("red"))
    predict(endpoint, b"text")
    for number in range(20):
        endpoint.get(f"/guess/{number}")
    text = endpoint.get("/metrics").text
    assert 'imago_requests_total{route="/predict",status="200"} 1.0' in text
    assert 'imago_requests_total{route="/predict",status="415"} 1.0' in text
    assert 'imago_requests_total{route="none",status="404"} 20.0' in text
    assert 'imago_predictions_total{label="red",version="7"} 1.0' in text
    assert 'imago_unreadable_total{code="not_a_picture"} 1.0' in text
    assert "guess" not in text


def test_metrics_tell_each_stage_the_queue_the_batches_and_the_model(
    endpoint: TestClient, package: ModelPackage
) -> None:
    predict(endpoint, picture_bytes("red"))
    endpoint.post("/predict_batch", files=[("images", picture_bytes(label)) for label in ("red", "blue", "green")])
    endpoint.post("/explain", files={"image": picture_bytes("red")})
    endpoint.post("/explain", files={"image": b"text"})
    with endpoint.app.queue.place():  # type: ignore[union-attr]
        text = endpoint.get("/metrics").text
    assert 'imago_unreadable_total{code="not_a_picture"} 1.0' in text
    assert 'imago_queue_length{queue="explain"} 0.0' in text
    for stage in STAGES:
        assert f'imago_stage_seconds_count{{stage="{stage}"}} 2.0' in text
        (seconds,) = [line for line in text.splitlines() if f'imago_stage_seconds_sum{{stage="{stage}"}}' in line]
        assert 0 < float(seconds.rpartition(" ")[2]) < 5
    assert 'imago_batch_pictures_bucket{le="1.0"} 1.0' in text
    assert 'imago_batch_pictures_bucket{le="4.0"} 2.0' in text
    assert 'imago_queue_length{queue="predict"} 1.0' in text
    assert 'imago_queue_length{queue="predict"} 0.0' in endpoint.get("/metrics").text
    (model,) = [line for line in text.splitlines() if line.startswith("imago_model_info")]
    assert model.endswith(" 1.0")
    for name, value in {"name": "moths", "version": "7", "fingerprint": package.fingerprint}.items():
        assert f'{name}="{value}"' in model


def test_clients_that_wait_are_answered_together_each_for_its_own_picture(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, predict_all = threading.Event(), runtime.predict

    def held(*pictures: Any, **options: Any) -> Any:
        assert gate.wait(30)
        return predict_all(*pictures, **options)

    monkeypatch.setattr(runtime, "predict", held)
    labels = ["red", "green", "blue", "green", "red", "blue", "blue"]
    files = [{"image": picture_bytes(label, seed=seed)} for seed, label in enumerate(labels)]
    files.insert(3, {"image": b"text"})
    with application(runtime, ServingSettings(max_batch=4)) as app, over_sockets(app) as url:
        ask = partial(httpx.post, f"{url}/predict", timeout=60, trust_env=False)
        with ThreadPoolExecutor(len(files)) as pool:
            asked = [pool.submit(ask, files=files[0])]
            until(lambda: app.queue.busy_seconds, 20, "the first has not begun")
            asked += [pool.submit(ask, files=file) for file in files[1:]]
            until(lambda: len(app.queue._turns) == len(files) - 1, 20, "not all wait for their turn")
            gate.set()
            answers = [one.result() for one in asked]
        refused = answers.pop(3)
        text = httpx.get(f"{url}/metrics", trust_env=False).text
    assert (refused.status_code, refused.json()["error"]["code"]) == (415, "not_a_picture")
    assert [answer.json()["predictions"][0]["label"] for answer in answers] == labels
    assert len({answer.json()["prediction_id"] for answer in answers}) == len(labels)
    assert "imago_batch_pictures_sum 7.0" in text
    assert "imago_batch_pictures_count 3.0" in text


def test_a_batch_lets_others_have_their_turn(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, predict_all = threading.Event(), runtime.predict
    turns: list[int] = []

    def held(pictures: list[bytes], **options: Any) -> Any:
        turns.append(len(pictures))
        assert gate.wait(30)
        return predict_all(pictures, **options)

    monkeypatch.setattr(runtime, "predict", held)
    labels = ["red", "green", "blue", "green", "red", "blue", "blue", "red", "green", "blue"]
    batch = [("images", picture_bytes(label, seed=seed)) for seed, label in enumerate(labels)]
    batch[5] = ("images", b"text")
    with application(runtime, ServingSettings(max_waiting=2)) as app, over_sockets(app) as url:
        ask = partial(httpx.post, timeout=60, trust_env=False)
        with ThreadPoolExecutor(2) as pool:
            several = pool.submit(ask, f"{url}/predict_batch", files=batch)
            until(lambda: app.queue.busy_seconds, 20, "the batch has not begun")
            one = pool.submit(ask, f"{url}/predict", files={"image": picture_bytes("red")})
            until(lambda: len(app.queue._turns) == 1, 20, "the other does not wait for its turn")
            assert app.queue.waiting == 2  # a batch counts as one request
            gate.set()
            assert one.result().status_code == 200
            results = several.result().json()["results"]
    assert turns == [4, 1, 4, 2]
    assert results.pop(5)["error"]["code"] == "not_a_picture"
    assert [result["predictions"][0]["label"] for result in results] == labels[:5] + labels[6:]


def test_of_a_batch_that_nobody_waits_for_the_rest_is_not_done(
    open_endpoint: Open, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict_all = runtime.predict
    turns: list[int] = []

    def noted(pictures: list[bytes], **options: Any) -> Any:
        turns.append(len(pictures))
        return predict_all(pictures, **options)

    monkeypatch.setattr(runtime, "predict", noted)
    part = b'--b\r\nContent-Disposition: form-data; name="images"\r\n\r\n' + picture_bytes("red") + b"\r\n"
    assert hung_up(open_endpoint().app, "/predict_batch", part * 10 + b"--b--\r\n") == [499]
    assert turns == [4]


def test_a_picture_that_cannot_be_read_has_no_forward_pass(endpoint: TestClient) -> None:
    predict(endpoint, b"text")
    text = endpoint.get("/metrics").text
    assert 'imago_stage_seconds_count{stage="forward"} 0.0' in text
    assert "imago_batch_pictures_count 0.0" in text


def test_every_path_of_the_contract_is_described(endpoint: TestClient) -> None:
    document = endpoint.get("/docs.json").json()
    assert document["openapi"].startswith("3.")
    assert set(document["paths"]) == {
        "/predict", "/predict_batch", "/explain", "/feedback", "/info", "/metrics", "/livez", "/readyz", "/ui",
        "/docs.json", "/card", "/reports", "/reports/{report}",
    }  # fmt: skip
    references = {line.split('"')[3] for line in json.dumps(document, indent=0).splitlines() if '"$ref"' in line}
    assert references == {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}


def test_the_page_asks_its_own_host_only(endpoint: TestClient) -> None:
    response = endpoint.get("/ui")
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http://" not in response.text
    assert "https://" not in response.text
    assert "style=" not in response.text
    assert response.headers["x-content-type-options"] == "nosniff"
    assert endpoint.get("/", follow_redirects=False).headers["location"] == "ui"


def test_the_description_tells_nobody_without_a_key_the_classes(
    open_endpoint: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    guarded, bare = open_endpoint(api_key="open sesame"), open_endpoint()
    monkeypatch.setattr(about, "describe", None)  # it is made once
    label = {"type": "string"}
    for endpoint, told in ((guarded, label), (bare, label | {"enum": ["blue", "green", "red"]})):
        for _ in range(2):
            document = endpoint.get("/docs.json").json()
            assert document["components"]["schemas"]["Feedback"]["properties"]["label"] == told
    assert not any(f'"{name}"' in guarded.get("/docs.json").text for name in ("blue", "green", "red"))


def hung_up(application: Any, path: str, body: bytes, *, more: bool = False) -> list[int]:
    """Send a body, or the beginning of one, and hang up; return the status that would have been answered."""
    headers = [(b"content-type", FORM.encode()), (b"content-length", b"99999")]
    scope = {
        "type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"",
        "headers": headers, "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "scheme": "http",
        "http_version": "1.1", "root_path": "",
    }  # fmt: skip
    messages: list[Any] = [{"type": "http.request", "body": body, "more_body": more}]
    sent: list[Any] = []

    async def receive() -> Any:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(application(scope, receive, send))
    return [message["status"] for message in sent if message["type"] == "http.response.start"]


def test_a_client_that_hangs_up_is_not_counted_as_our_fault(endpoint: TestClient) -> None:
    assert hung_up(endpoint.app, "/predict", b"--b\r\n", more=True) == [499]
