"""The client says in one line what an endpoint refused."""

import json
from collections.abc import Callable

import httpx
import pytest

from imago.errors import ConfigError
from imago.serving.client import Client, EndpointError


def client(answer: Callable[[httpx.Request], httpx.Response], **options: object) -> Client:
    return Client("http://endpoint/", transport=httpx.MockTransport(answer), **options)  # type: ignore[arg-type]


def test_a_picture_is_sent_in_its_field_with_the_key() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url == "http://endpoint/predict"
        assert request.headers["x-api-key"] == "secret"
        assert b'name="image"; filename="a.jpg"' in request.content
        assert b"bytes of a picture" in request.content
        return httpx.Response(200, json={"predictions": []})

    with client(answer, key="secret") as endpoint:
        assert endpoint.predict(b"bytes of a picture", name="a.jpg") == {"predictions": []}


def test_pictures_of_a_batch_share_a_field() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.content.count(b'name="images"') == 2
        return httpx.Response(200, json={"results": [1, 2]})

    with client(answer) as endpoint:
        assert endpoint.predict_batch([b"a", b"b"]) == [1, 2]


def test_feedback_is_json() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert json.loads(request.content) == {"prediction_id": "1", "label": "red"}
        return httpx.Response(200, json={})

    with client(answer) as endpoint:
        endpoint.feedback("1", "red")


def test_a_refusal_keeps_its_words() -> None:
    refusal = {"error": {"code": "not_a_picture", "message": "The picture cannot be used."}}
    with client(lambda _: httpx.Response(415, json=refusal)) as endpoint, pytest.raises(EndpointError) as error:
        endpoint.predict(b"")
    assert str(error.value) == "The picture cannot be used."
    assert (error.value.status, error.value.code) == (415, "not_a_picture")


def test_an_answer_of_something_else_is_told() -> None:
    with client(lambda _: httpx.Response(502, text="<html>")) as endpoint, pytest.raises(EndpointError, match="502"):
        endpoint.info()
    with client(lambda _: httpx.Response(200, text="hello")) as endpoint, pytest.raises(EndpointError, match="Imago"):
        endpoint.info()


def test_patience_is_had_as_often_as_agreed() -> None:
    asked = 0

    def answer(_: httpx.Request) -> httpx.Response:
        nonlocal asked
        asked += 1
        return (
            httpx.Response(503, headers={"Retry-After": "0"}) if asked < 3 else httpx.Response(200, json={"n": asked})
        )

    with client(answer) as endpoint:
        assert endpoint.info() == {"n": 3}
    asked = 0
    with client(answer, retries=1) as endpoint, pytest.raises(EndpointError) as error:
        endpoint.info()
    assert (asked, error.value.status) == (2, 503)


def test_nobody_there_is_one_line() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("Connection refused", request=request)

    with client(refuse) as endpoint:
        assert endpoint.ready() is False
        with pytest.raises(EndpointError, match="http://endpoint cannot be reached: Connection refused"):
            endpoint.info()


def test_ready_is_what_the_endpoint_says() -> None:
    with client(lambda _: httpx.Response(503)) as endpoint:
        assert endpoint.ready() is False
    with client(lambda request: httpx.Response(200 if request.url.path == "/readyz" else 404)) as endpoint:
        assert endpoint.ready() is True


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="'http://host:port' is no address"):
        Client("http://host:port")
