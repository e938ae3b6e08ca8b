"""The client says in one line what an endpoint refused, and asks again where that does no harm."""

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from pydantic import ValidationError

from imago.errors import ConfigError, ImagoError
from imago.home import ROOT
from imago.serving import client as clients
from imago.serving import examples
from imago.serving.answers import Info, Prediction
from imago.serving.client import Client, EndpointError

PICTURE = b"bytes of a picture"
BUSY = httpx.Response(503, headers={"Retry-After": "0"}, json=examples.refusal(503, "overloaded"))

Answer = Callable[[httpx.Request], httpx.Response]


def client(answer: Answer, **options: object) -> Client:
    return Client("http://endpoint/", transport=httpx.MockTransport(answer), **options)  # type: ignore[arg-type]


class Endpoint:
    """Answers with what it is given, one after the other, and counts; an exception is raised."""

    def __init__(self, *answers: httpx.Response | type[Exception]) -> None:
        self.answers = list(answers)
        self.asked: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, httpx.Response):
            return answer
        raise answer("it was said")


def good(body: object) -> httpx.Response:
    return httpx.Response(200, json=body)


def test_a_picture_is_sent_in_its_field_with_the_key() -> None:
    endpoint = Endpoint(good(examples.PREDICTION))
    with client(endpoint, key="secret") as asked:
        answer = asked.predict(PICTURE)
    (request,) = endpoint.asked
    assert request.url == "http://endpoint/predict"
    assert request.headers["x-api-key"] == "secret"
    assert b'name="image"' in request.content
    assert PICTURE in request.content
    assert answer == Prediction.model_validate(examples.PREDICTION)
    assert (answer.label, answer.probability, answer.rejected) == ("LUNA MOTH", 0.941, False)
    assert answer.model.version == "7"


def test_an_answer_cannot_be_changed_and_a_new_key_in_it_is_passed_over() -> None:
    with client(Endpoint(good(examples.PREDICTION | {"new": 1}))) as asked:
        answer = asked.predict(PICTURE)
    with pytest.raises(ValidationError):
        answer.rejected = True  # type: ignore[misc]
    assert "new" not in answer.model_dump()


def test_a_file_is_sent_without_its_name(tmp_path: Path) -> None:
    file = tmp_path / "whose-moth.jpg"
    file.write_bytes(PICTURE)
    endpoint = Endpoint(good(examples.PREDICTION))
    with client(endpoint) as asked:
        asked.predict(file)
    assert PICTURE in endpoint.asked[0].content
    assert b"whose-moth" not in endpoint.asked[0].content


def test_a_file_that_cannot_be_sent_is_named_before_anything_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "MAX_PICTURE_BYTES", 5)
    (tmp_path / "large.jpg").write_bytes(PICTURE)
    said = {
        "absent.jpg": "absent.jpg cannot be read: No such file or directory.",
        ".": "is not a file.",
        "large.jpg": "large.jpg has more than 5 bytes",
    }
    with client(Endpoint()) as asked:
        for name, message in said.items():
            with pytest.raises(ImagoError, match=message):
                asked.predict(tmp_path / name)
        with pytest.raises(ImagoError, match="The picture has more than 5 bytes"):
            asked.predict_batch([b"small", PICTURE])


def test_pictures_of_a_batch_share_a_field_and_are_answered_in_their_order() -> None:
    endpoint = Endpoint(good(examples.BATCH))
    with client(endpoint) as asked:
        first, second = asked.predict_batch([PICTURE, b"text"])
    assert endpoint.asked[0].content.count(b'name="images"') == 2
    assert isinstance(first, Prediction)
    assert not isinstance(second, Prediction)
    assert (first.label, second.code) == ("LUNA MOTH", "not_a_picture")


def test_no_pictures_have_no_answers_and_nobody_is_asked() -> None:
    with client(Endpoint()) as asked:
        assert asked.predict_batch([]) == ()


def test_an_error_survives_the_way_to_another_process() -> None:
    error = EndpointError("busy", code="overloaded", status=503, retry_after=1.0, request_id="r1")
    assert vars(pickle.loads(pickle.dumps(error))) == vars(error)


def test_feedback_is_json() -> None:
    endpoint = Endpoint(good(examples.FEEDBACK))
    with client(endpoint) as asked:
        asked.feedback("1", "red")
    assert json.loads(endpoint.asked[0].content) == {"prediction_id": "1", "label": "red"}


def test_an_explanation_is_a_png_or_none() -> None:
    png = b"\x89PNG\r\n\x1a\n and so on"
    with client(Endpoint(httpx.Response(200, content=png), httpx.Response(200, text="<html>"))) as asked:
        assert asked.explain(PICTURE) == png
        with pytest.raises(EndpointError, match="http://endpoint/explain answered with something else") as error:
            asked.explain(PICTURE)
    assert error.value.code == "not_imago"


def test_info_tells_classes_and_limits() -> None:
    with client(Endpoint(good(examples.INFO))) as asked:
        info = asked.info()
    assert info == Info.model_validate(examples.INFO)
    assert (info.classes[0], info.limits.upload_bytes) == ("ATLAS MOTH", 10_000_000)


def test_a_refusal_keeps_its_words_and_its_facts() -> None:
    body = {"error": {"code": "not_a_picture", "message": "The picture \x1b[31mcannot be used.", "request_id": "r1"}}
    with client(Endpoint(httpx.Response(415, json=body))) as asked, pytest.raises(EndpointError) as error:
        asked.predict(b"")
    assert str(error.value) == error.value.message == "The picture [31mcannot be used."
    assert (error.value.status, error.value.code, error.value.request_id) == (415, "not_a_picture", "r1")
    assert error.value.retry_after is None


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (httpx.Response(502, text="<html>"), "http://endpoint/info answered 502 Bad Gateway."),
        (httpx.Response(307, headers={"Location": "/"}), "answered 307 Temporary Redirect."),
        (httpx.Response(200, text="hello"), "something else than Imago's endpoint does: is the address right?"),
        (httpx.Response(200, json={"model": "x"}), "something else"),
        (httpx.Response(200, content=b" " * 2000), "something else"),
    ],
)
def test_an_answer_of_something_else_is_told(
    answer: httpx.Response, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "MAX_ANSWER_BYTES", 1000)
    with client(Endpoint(answer)) as asked, pytest.raises(EndpointError, match=said) as error:
        asked.info()
    assert error.value.code == "not_imago"


def test_a_batch_that_is_answered_in_part_is_no_answer() -> None:
    with client(Endpoint(good(examples.BATCH))) as asked, pytest.raises(EndpointError, match="something else"):
        asked.predict_batch([PICTURE])


def test_patience_is_had_as_often_as_agreed() -> None:
    endpoint = Endpoint(BUSY, BUSY, good(examples.PREDICTION))
    with client(endpoint) as asked:
        assert asked.predict(PICTURE).label == "LUNA MOTH"
    assert [request.content.count(PICTURE) for request in endpoint.asked] == [1, 1, 1]
    endpoint = Endpoint(BUSY, BUSY)
    with client(endpoint, retries=1) as asked, pytest.raises(EndpointError) as error:
        asked.predict(PICTURE)
    assert (len(endpoint.asked), error.value.status, error.value.code) == (2, 503, "overloaded")


def test_who_is_to_come_back_much_later_is_told_at_once() -> None:
    body = examples.refusal(429, "too_many_requests")
    endpoint = Endpoint(httpx.Response(429, headers={"Retry-After": "3600"}, json=body))
    with client(endpoint) as asked, pytest.raises(EndpointError) as error:
        asked.info()
    assert (len(endpoint.asked), error.value.retry_after) == (1, 3600.0)


def test_what_never_reached_the_endpoint_is_sent_again() -> None:
    endpoint = Endpoint(httpx.ConnectError, good(examples.PREDICTION))
    with client(endpoint) as asked:
        assert asked.predict(PICTURE).label == "LUNA MOTH"
    assert len(endpoint.asked) == 2


def test_what_broke_off_is_asked_again_where_that_changes_nothing() -> None:
    endpoint = Endpoint(httpx.RemoteProtocolError, httpx.ReadError, good(examples.INFO))
    with client(endpoint) as asked:
        assert asked.info().top_k == 3
    endpoint = Endpoint(httpx.ReadError, good(examples.FEEDBACK))
    with client(endpoint) as asked:
        asked.feedback("1", "red")
    endpoint = Endpoint(httpx.ReadError)
    with client(endpoint) as asked, pytest.raises(EndpointError, match="The connection to http://endpoint broke off"):
        asked.predict(PICTURE)
    assert len(endpoint.asked) == 1


def test_an_endpoint_that_does_not_answer_in_time_is_not_asked_again() -> None:
    endpoint = Endpoint(httpx.ReadTimeout)
    with client(endpoint, timeout=25) as asked, pytest.raises(EndpointError, match="within 25 seconds") as error:
        asked.info()
    assert (len(endpoint.asked), error.value.code, error.value.status) == (1, "too_slow", None)


def test_nobody_there_is_one_line() -> None:
    with client(Endpoint(*[httpx.ConnectError] * 4)) as asked:
        assert asked.ready() is False
        with pytest.raises(EndpointError, match="http://endpoint cannot be reached: it was said") as error:
            asked.info()
    assert (error.value.status, error.value.code) == (None, "unreachable")


def test_ready_is_what_the_endpoint_says() -> None:
    with client(Endpoint(httpx.Response(503, text="Service is not ready"), httpx.Response(200, text="\n"))) as asked:
        assert (asked.ready(), asked.ready()) == (False, True)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://host:port", "'http://host:port' is no address"),
        ("localhost:3000", "Did you mean 'http://localhost:3000'?"),
        ("127.0.0.1:3000", "Did you mean 'http://127.0.0.1:3000'?"),
        ("ftp://host", "must begin with http:// or https://"),
        ("http://", "must begin with http:// or https://"),
        ("", "must begin with http:// or https://"),
    ],
)
def test_an_address_that_is_none_is_refused(url: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        Client(url)
    assert said in str(error.value)


def test_the_address_may_have_a_path_and_its_password_is_not_said() -> None:
    endpoint = Endpoint(httpx.Response(502))
    with Client("https://me:secret@host/moths/", transport=httpx.MockTransport(endpoint)) as asked:
        assert asked.url == "https://host/moths"
        with pytest.raises(EndpointError) as error:
            asked.info()
    assert endpoint.asked[0].url.path == "/moths/info"
    assert "secret" not in str(error.value)


def test_the_key_comes_from_the_environment_unless_one_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGO_API_KEY", "ours")
    endpoint = Endpoint(*[good(examples.INFO)] * 3)
    for key in (None, "mine", ""):
        with client(endpoint, key=key) as asked:
            asked.info()
    assert [request.headers.get("x-api-key") for request in endpoint.asked] == ["ours", "mine", None]


@pytest.mark.parametrize("key", ["geheim\n", " geheim", "gehéim", "ge\r\nheim"])
def test_a_key_that_no_header_can_hold_is_refused_without_being_said(key: str) -> None:
    with pytest.raises(ConfigError) as error:
        client(Endpoint(), key=key)
    assert "heim" not in str(error.value)


def test_it_loads_nothing_heavy() -> None:
    heavy = ("torch", "pandas", "pyarrow", "numpy", "zenml", "bentoml", "onnxruntime")
    program = f"import sys, imago.serving.client; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
