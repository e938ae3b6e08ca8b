"""Asks an endpoint over HTTP: typed answers, and errors that say in one line what went wrong.

`with Client("http://127.0.0.1:3000") as endpoint: print(endpoint.predict(Path("moth.jpg")).label)`
"""

import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
from pydantic import BaseModel, ValidationError
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, wait_exponential, wait_random

from imago.errors import ConfigError, ImagoError, first_line
from imago.serving.answers import Batch, Error, Info, LabelProbability, Limits, Model, Prediction, Refused

__all__ = [
    "Client",
    "EndpointError",
    "Info",
    "LabelProbability",
    "Limits",
    "Model",
    "Prediction",
    "Refused",
]

KEY = "IMAGO_API_KEY"
MAX_PICTURE_BYTES = 64 * 1024 * 1024  # an endpoint may take less, and says so
MAX_ANSWER_BYTES = 64 * 1024 * 1024
LONGEST_WAIT = 10.0  # seconds: who is told to come back later than that is told so, and does not wait
LONGEST_MESSAGE = 500  # characters
LOOPBACK = {"127.0.0.1", "::1", "localhost"}

_PATIENCE = (429, 503)
_NEVER_ARRIVED = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_BROKE_OFF = (httpx.NetworkError, httpx.RemoteProtocolError)
_PNG = b"\x89PNG\r\n\x1a\n"

Answer = TypeVar("Answer", bound=BaseModel)
Picture = bytes | Path
"""An encoded picture, or the file that holds one."""


class EndpointError(ImagoError):
    """An endpoint that refused, or that could not be asked.

    `code` is the endpoint's own (`not_a_picture`, `wrong_key` …); where there was no answer it is `unreachable` or
    `too_slow`, and `status` is None; `not_imago` where something else answered. `retry_after` is in seconds.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str = "unreachable",
        status: int | None = None,
        retry_after: float | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.status = status
        self.retry_after = retry_after
        self.request_id = request_id


class Client:
    """A connection to an endpoint, to be used in a `with` statement; several threads may share one.

    What the endpoint was too busy for is asked again, after the pause that it asks for. So is what never reached it,
    and what broke off on the way, except for predictions: they may have been counted already. Every method raises
    EndpointError, and ImagoError for a file that is no picture to send.
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        timeout: float = 30.0,
        retries: int = 2,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Without a key, IMAGO_API_KEY is one; an empty key is none.

        `timeout` is in seconds, for each silence of the endpoint's. `retries` is how often it is asked again.

        Raises ConfigError for an address or a key that cannot be one.
        """
        address = _address(url)
        self.url = str(address.copy_with(userinfo=b"")).rstrip("/")
        self.timeout = timeout
        direct = address.host in LOOPBACK  # no proxy has a way there, or any business with the key
        self._attempts = 1 + retries
        self._http = httpx.Client(
            base_url=address,
            headers=_headers(os.environ.get(KEY) if key is None else key),
            timeout=timeout,
            transport=transport,
            trust_env=not direct,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; a `with` statement does it at its end."""
        self._http.close()

    def predict(self, picture: Picture) -> Prediction:
        """Return what the model says of a picture."""
        return self._read(Prediction, "POST", "/predict", files=_form("image", picture))

    def predict_batch(self, pictures: Sequence[Picture]) -> tuple[Prediction | Refused, ...]:
        """Return the answers for several pictures, in their order; one that cannot be read spoils no other."""
        if not pictures:
            return ()
        batch = self._read(Batch, "POST", "/predict_batch", files=_form("images", *pictures))
        if len(batch.results) != len(pictures):
            raise self._not_imago("/predict_batch")
        return tuple(one if isinstance(one, Prediction) else one.error for one in batch.results)

    def explain(self, picture: Picture) -> bytes:
        """Return a PNG of the picture with a heat map laid over it: where the answer comes from."""
        png = self._ask("POST", "/explain", repeatable=True, files=_form("image", picture))
        if not png.startswith(_PNG):
            raise self._not_imago("/explain")
        return png

    def feedback(self, prediction_id: str, label: str) -> None:
        """Say what a predicted picture really shows."""
        self._ask("POST", "/feedback", repeatable=True, json={"prediction_id": prediction_id, "label": label})

    def info(self) -> Info:
        """Return what the endpoint tells of its model and its limits."""
        return self._read(Info, "GET", "/info", repeatable=True)

    def ready(self) -> bool:
        """Tell whether the endpoint answers predictions; it is asked once."""
        try:
            self._ask_once("GET", "/readyz", {})
        except (EndpointError, httpx.HTTPError):
            return False
        return True

    def _read(self, kind: type[Answer], method: str, path: str, *, repeatable: bool = False, **content: Any) -> Answer:
        body = self._ask(method, path, repeatable=repeatable, **content)
        try:
            return kind.model_validate_json(body)
        except ValidationError as error:
            raise self._not_imago(path) from error

    def _ask(self, method: str, path: str, *, repeatable: bool, **content: Any) -> bytes:
        """Return an answer's body, having asked as often as it takes. What is `repeatable` changes nothing twice."""
        again = Retrying(
            retry=retry_if_exception(lambda error: _is_passing(error, repeatable=repeatable)),
            wait=_pause,
            stop=stop_after_attempt(self._attempts),
            reraise=True,
        )
        try:
            return again(self._ask_once, method, path, content)
        except _NEVER_ARRIVED as error:
            message = f"The endpoint {self.url} cannot be reached: {first_line(error)}"
            raise EndpointError(message, code="unreachable") from error
        except httpx.TimeoutException as error:
            message = f"The endpoint {self.url} did not answer within {self.timeout:g} seconds."
            raise EndpointError(message, code="too_slow") from error
        except httpx.HTTPError as error:
            message = f"The connection to {self.url} broke off: {first_line(error)}"
            raise EndpointError(message, code="unreachable") from error

    def _ask_once(self, method: str, path: str, content: dict[str, Any]) -> bytes:
        with self._http.stream(method, path, **content) as response:
            body = bytearray()
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > MAX_ANSWER_BYTES:
                    raise self._not_imago(path)
        if response.is_success:
            return bytes(body)
        raise _refused(response, bytes(body), f"{self.url}{path}")

    def _not_imago(self, path: str) -> EndpointError:
        message = f"{self.url}{path} answered with something else than Imago's endpoint does: is the address right?"
        return EndpointError(message, code="not_imago")


def _address(url: str) -> httpx.URL:
    try:
        address = httpx.URL(url.strip().rstrip("/"))
    except httpx.InvalidURL as error:
        raise ConfigError(f"The endpoint '{url}' is no address: {error}.") from error
    if address.scheme not in ("http", "https") or not address.host:
        instead = "" if "://" in url else f" Did you mean 'http://{url.strip()}'?"
        raise ConfigError(f"The endpoint '{url}' is no address: it must begin with http:// or https://.{instead}")
    return address


def _headers(key: str | None) -> dict[str, str]:
    if not key:
        return {}
    if not (key.isascii() and key.isprintable() and key == key.strip()):
        raise ConfigError("The key has characters that no key has: is there a blank, a line break or an accent in it?")
    return {"X-API-Key": key}


def _form(field: str, *pictures: Picture) -> list[tuple[str, tuple[str, bytes]]]:
    """Return what httpx makes a multipart form of. The files' names stay here."""
    return [(field, ("picture", _bytes_of(picture))) for picture in pictures]


def _bytes_of(picture: Picture) -> bytes:
    if isinstance(picture, bytes):
        data, name = picture, "The picture"
    else:
        data, name = _read_file(picture), str(picture)
    if len(data) > MAX_PICTURE_BYTES:
        raise ImagoError(f"{name} has more than {MAX_PICTURE_BYTES:,} bytes: no endpoint takes that much.")
    return data


def _read_file(path: Path) -> bytes:
    try:
        if path.exists() and not path.is_file():
            raise ImagoError(f"{path} is not a file.")
        with path.open("rb") as file:
            return file.read(MAX_PICTURE_BYTES + 1)
    except OSError as error:
        raise ImagoError(f"{path} cannot be read: {error.strerror}.") from error


def _is_passing(error: BaseException, *, repeatable: bool) -> bool:
    """Tell whether it may be otherwise in a moment, and asking again does no harm."""
    if isinstance(error, EndpointError):
        return error.status in _PATIENCE and (error.retry_after or 0) <= LONGEST_WAIT
    return isinstance(error, _NEVER_ARRIVED) or (repeatable and isinstance(error, _BROKE_OFF))


_pause_growing = wait_exponential(multiplier=0.1, max=2.0) + wait_random(0, 0.1)  # so that not all come back at once


def _pause(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, EndpointError) and error.retry_after is not None:
        return error.retry_after
    return _pause_growing(state)


def _refused(response: httpx.Response, body: bytes, asked: str) -> EndpointError:
    status, wait = response.status_code, response.headers.get("retry-after", "")
    retry_after = float(wait) if wait.isascii() and wait.isdigit() else None
    try:
        refused = Error.model_validate_json(body).error
    except ValidationError:
        message = f"{asked} answered {status} {response.reason_phrase}".rstrip() + "."
        return EndpointError(message, code="not_imago", status=status, retry_after=retry_after)
    message = "".join(letter for letter in refused.message[:LONGEST_MESSAGE] if letter.isprintable())
    return EndpointError(
        message, code=refused.code, status=status, retry_after=retry_after, request_id=refused.request_id
    )
