"""The description of the endpoint is true: every answer has an example, and every real answer is described."""

import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from PIL import Image
from starlette.routing import Route
from starlette.testclient import TestClient

from imago.monitoring.prediction_store import PredictionStore
from imago.serving import answers, examples
from imago.serving.answers import Batch, Error, Info, Prediction
from imago.serving.app import HUNG_SECONDS, Application
from imago.serving.openapi import describe
from imago.serving.package import ModelPackage
from imago.serving.runtime import Runtime
from imago.serving.settings import ServingSettings
from tests.endpoints import application
from tests.packages import CLASSES, make_package, picture_bytes
from tests.pictures import png_that_claims

DOCUMENT = describe("Imago: moths", "7", classes=CLASSES)
OPERATIONS = {
    f"{method.upper()} {path}": operation
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
}
ANSWERS = {
    f"{name} {status}": response
    for name, operation in OPERATIONS.items()
    for status, response in operation["responses"].items()
}
FORM = {"Content-Type": "multipart/form-data; boundary=b"}
JSON = {"Content-Type": "application/json"}
LUNA = picture_bytes("red")


def json_schema(schema: Any) -> Any:
    """Return a schema of OpenAPI 3.0 as JSON Schema, where null is a type of its own."""
    if isinstance(schema, list):
        return [json_schema(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    told = {key: json_schema(value) for key, value in schema.items() if key != "nullable"}
    return told | {"type": [told["type"], "null"]} if schema.get("nullable") else told


def validate(schema: Any, value: Any) -> None:
    whole = json_schema({**schema, "components": DOCUMENT["components"]})
    Draft202012Validator.check_schema(whole)
    Draft202012Validator(whole).validate(value)


def shown(content: dict[str, Any]) -> list[Any]:
    """Return the examples of one content type."""
    return [content["example"]] if "example" in content else [one["value"] for one in content["examples"].values()]


@pytest.mark.parametrize("name", ANSWERS)
def test_every_answer_has_an_example_that_its_schema_takes(name: str) -> None:
    response = ANSWERS[name]
    assert response["description"]
    assert response["headers"]["X-Request-ID"]
    for kind, content in response["content"].items():
        values = shown(content)
        assert values, kind
        for value in values:
            validate(content["schema"], value)


@pytest.mark.parametrize("name", [name for name in ANSWERS if not name.endswith(" 200")])
def test_every_refusal_shows_the_body_of_each_of_its_codes(name: str) -> None:
    (content,) = ANSWERS[name]["content"].values()
    for code, example in content["examples"].items():
        assert example["value"]["error"]["code"] == code
        assert example["value"]["error"]["message"].endswith((".", "?"))


@pytest.mark.parametrize("name", [name for name in ANSWERS if name.endswith((" 429", " 503"))])
def test_who_may_come_back_is_told_when(name: str) -> None:
    assert "Retry-After" in ANSWERS[name]["headers"]


def test_every_request_body_has_an_example_or_is_a_form() -> None:
    for name, operation in OPERATIONS.items():
        for kind, content in operation.get("requestBody", {}).get("content", {}).items():
            if kind != "multipart/form-data":
                assert shown(content), name
                validate(content["schema"], shown(content)[0])


def test_the_client_reads_the_examples() -> None:
    assert Prediction.model_validate(examples.PREDICTION).label == "LUNA MOTH"
    assert Info.model_validate(examples.INFO).limits.batch_pictures == 64
    first, second = Batch.model_validate(examples.BATCH).results
    assert isinstance(first, Prediction)
    assert isinstance(second, Error)


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    package: ModelPackage = make_package(tmp_path_factory.mktemp("package") / "colours")
    return Runtime(package)


@pytest.fixture(scope="module")
def opened(runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    store = PredictionStore(tmp_path_factory.mktemp("store") / "predictions.sqlite")
    with application(runtime, ServingSettings(predictions=store.path, max_upload_bytes=50_000, max_pictures=2)) as app:
        yield app


@pytest.fixture
def endpoint(opened: Application) -> TestClient:
    return TestClient(opened)


def check(response: Any) -> None:
    """Hold a real answer to what is described of it."""
    request = response.request
    path = "/reports/{report}" if request.url.path.startswith("/reports/") else request.url.path
    described = ANSWERS[f"{request.method} {path} {response.status_code}"]
    kind = response.headers["content-type"].partition(";")[0]
    assert kind in described["content"]
    assert described["headers"].keys() >= {"X-Request-ID"}
    content = described["content"][kind]
    if kind == "application/json":
        validate(content["schema"], response.json())
    if response.status_code != 200:
        assert response.json()["error"]["code"] in content["examples"]
        if "retry-after" in response.headers:
            assert "Retry-After" in described["headers"]


def test_every_route_is_described(opened: Application) -> None:
    routes = {route.path for route in opened.entrance.inside.routes if isinstance(route, Route)}
    assert routes - {"/", "/ui/{file}"} == DOCUMENT["paths"].keys()


def test_good_answers_are_as_described(endpoint: TestClient) -> None:
    answer = endpoint.post("/predict", files={"image": LUNA})
    feedback = {"prediction_id": answer.json()["prediction_id"], "label": "red"}
    for response in (
        answer,
        endpoint.post("/predict_batch", files=[("images", LUNA), ("images", b"text")]),
        endpoint.post("/explain", files={"image": LUNA}),
        endpoint.post("/feedback", json=feedback),
        *(endpoint.get(path) for path in ("/info", "/card", "/metrics", "/ui", "/docs.json", "/livez", "/readyz")),
    ):
        assert response.status_code == 200
        check(response)
    assert endpoint.get("/docs.json").json() == DOCUMENT


def test_what_a_bento_says_of_its_model_is_told(runtime: Runtime, tmp_path: Path) -> None:
    tested = answers.Tested(accuracy=0.9, low=0.8, high=0.95, pictures=50)
    with application(runtime, ServingSettings(shelf=tmp_path), card="# moths\n\n## Test", tested=tested) as app:
        info, card = (TestClient(app).get(path) for path in ("/info", "/card"))
    for response in (info, card):
        check(response)
    assert Info.model_validate(info.json()).tested == tested
    assert info.json()["reports"] is True
    assert (card.text, card.headers["content-type"]) == ("# moths\n\n## Test", "text/plain; charset=utf-8")


def test_reports_are_as_described(runtime: Runtime, tmp_path: Path) -> None:
    (tmp_path / "MODEL_CARD.md").write_text("# moths")
    (tmp_path / "data.html").write_text("<p>")
    paths = ["/reports", "/reports/MODEL_CARD.md", "/reports/data.html", "/reports/drift.html", "/reports/other.html"]
    for shelf, expected in ((tmp_path, [200, 200, 200, 404, 404]), (None, [404] * 5)):
        with application(runtime, ServingSettings(shelf=shelf)) as app:
            answers = [TestClient(app).get(path) for path in paths]
        assert [answer.status_code for answer in answers] == expected
        for answer in answers:
            check(answer)


def bmp() -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", (200, 200)).save(sink, "BMP")
    return sink.getvalue()


BODIES: dict[str, dict[str, Any]] = {
    "no form": {},
    "other type": {"content": LUNA, "headers": {"Content-Type": "image/png"}},
    "no boundary": {"content": b"", "headers": {"Content-Type": "multipart/form-data"}},
    "broken off": {"content": b"--b\r\n", "headers": FORM},
    "other field": {"files": {"picture": LUNA}},
    "empty": {"files": {"image": b"", "images": b""}},
    "text": {"files": {"image": b"text", "images": b"text"}},
    "truncated": {"files": {"image": LUNA[:80], "images": LUNA[:80]}},
    "a bomb": {"files": {"image": png_that_claims(60_000, 60_000), "images": png_that_claims(60_000, 60_000)}},
    "too many bytes": {"files": {"image": bmp(), "images": bmp()}},
    "several": {"files": [("image", LUNA)] * 3 + [("images", LUNA)] * 3},
    "many parts": {"files": [("x", b"")] * 257},
    "json": {"json": {"image": "x"}},
    "broken json": {"content": b"{", "headers": JSON},
    "no object": {"json": []},
    "no label": {"json": {"prediction_id": "1"}},
    "unknown label": {"json": {"prediction_id": "1", "label": "rde"}},
    "unknown prediction": {"json": {"prediction_id": "0" * 32, "label": "red"}},
    "much json": {"content": b" " * 70_000, "headers": JSON},
}


@pytest.mark.parametrize("path", ["/predict", "/predict_batch", "/explain", "/feedback"])
@pytest.mark.parametrize("body", BODIES)
def test_what_a_bad_body_is_answered_is_described(endpoint: TestClient, path: str, body: str) -> None:
    response = endpoint.post(path, **BODIES[body])
    assert response.status_code < 500
    check(response)


def test_what_a_guarded_busy_or_broken_endpoint_answers_is_described(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(endpoint: TestClient) -> list[Any]:
        posts = [("/predict", "image"), ("/predict_batch", "images"), ("/explain", "image")]
        return [endpoint.post(path, files={field: LUNA}) for path, field in posts]

    def seen(answers: list[Any]) -> set[tuple[int, str]]:
        for response in answers:
            check(response)
        return {(response.status_code, response.json()["error"]["code"]) for response in answers}

    with application(runtime, ServingSettings(api_key="k3y")) as app:
        endpoint = TestClient(app)
        assert seen([*asked(endpoint), endpoint.get("/info"), endpoint.get("/metrics")]) == {(401, "no_key")}
        endpoint.headers["X-API-Key"] = "key"
        assert seen([*asked(endpoint), endpoint.post("/feedback", json=examples.FEEDBACK)]) == {(401, "wrong_key")}
    with application(runtime, ServingSettings(rate_limit=0.001)) as app:
        endpoint = TestClient(app)
        endpoint.get("/info")
        answers = [*asked(endpoint), endpoint.get("/info"), endpoint.get("/metrics")]
        assert seen(answers) == {(429, "too_many_requests")}
    with application(runtime, ServingSettings(max_waiting=0)) as app:
        app.explain_queue.max_waiting = 0
        endpoint = TestClient(app, raise_server_exceptions=False)
        assert seen(asked(endpoint)) == {(503, "overloaded")}
        assert seen([endpoint.post("/feedback", json={"prediction_id": "1", "label": "red"})]) == {(404, "not_kept")}
        app.feedback.queue.max_waiting = 0
        assert seen([endpoint.post("/feedback", json=examples.FEEDBACK)]) == {(503, "overloaded")}
        app.queue._begun = time.monotonic() - HUNG_SECONDS
        assert seen([endpoint.get("/readyz")]) == {(503, "not_ready")}
        app.queue._begun = None
    with application(runtime, ServingSettings()) as app:
        endpoint = TestClient(app, raise_server_exceptions=False)
        monkeypatch.setattr(runtime, "predict_array", lambda _: 1 / 0)
        assert seen(asked(endpoint)) == {(500, "internal")}
