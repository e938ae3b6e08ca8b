"""Asks an endpoint over HTTP, and says what went wrong in one line."""

import time
from types import TracebackType
from typing import Any, Self

import httpx

from imago.errors import ConfigError, ImagoError

_PATIENCE = (429, 503)
_LONGEST_WAIT = 10.0  # seconds
LOOPBACK = {"127.0.0.1", "::1", "localhost"}


class EndpointError(ImagoError):
    """An endpoint that cannot be reached (`status` 0), or that refused, with the status and code that it gave."""

    def __init__(self, message: str, *, status: int = 0, code: str = "unreachable") -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Client:
    """A connection to an endpoint, to be used in a `with` statement."""

    def __init__(
        self,
        endpoint: str,
        *,
        key: str | None = None,
        timeout: float = 30.0,
        retries: int = 2,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """`timeout` is in seconds; `retries` is how often an endpoint that asks for patience is asked again."""
        headers = {"X-API-Key": key} if key else {}
        self.endpoint = endpoint.rstrip("/")
        self.retries = retries
        try:
            host = httpx.URL(self.endpoint).host
        except httpx.InvalidURL as error:
            raise ConfigError(f"The endpoint '{endpoint}' is no address: {error}.") from error
        direct = host in LOOPBACK  # no proxy has a way there, or any business with the key
        self._http = httpx.Client(
            base_url=self.endpoint, headers=headers, timeout=timeout, transport=transport, trust_env=not direct
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._http.close()

    def predict(self, picture: bytes, *, name: str = "picture") -> dict[str, Any]:
        """Return the answer for an encoded picture. Raises EndpointError, as every method here does."""
        return self._json("POST", "/predict", files=[("image", (name, picture))])

    def predict_batch(self, pictures: list[bytes]) -> list[dict[str, Any]]:
        """Return the answers for several pictures, in their order; one that cannot be read has an `error`."""
        files = [("images", (f"picture-{index}", picture)) for index, picture in enumerate(pictures)]
        results: list[dict[str, Any]] = self._json("POST", "/predict_batch", files=files)["results"]
        return results

    def explain(self, picture: bytes, *, name: str = "picture") -> bytes:
        """Return the picture as PNG with a heat map laid over it."""
        return self._ask("POST", "/explain", files=[("image", (name, picture))]).content

    def feedback(self, prediction_id: str, label: str) -> None:
        """Say what a predicted picture really shows."""
        self._ask("POST", "/feedback", json={"prediction_id": prediction_id, "label": label})

    def info(self) -> dict[str, Any]:
        """Return what the endpoint tells of its model and its limits."""
        return self._json("GET", "/info")

    def ready(self) -> bool:
        """Tell whether the endpoint answers predictions."""
        try:
            return self._http.get("/readyz").status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    def _json(self, method: str, path: str, **content: Any) -> dict[str, Any]:
        response = self._ask(method, path, **content)
        try:
            body: dict[str, Any] = response.json()
        except ValueError as error:
            raise EndpointError(f"{self.endpoint}{path} did not answer with JSON: is it an Imago endpoint?") from error
        return body

    def _ask(self, method: str, path: str, **content: Any) -> httpx.Response:
        for attempt in range(self.retries + 1):
            try:
                response = self._http.request(method, path, **content)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise EndpointError(f"The endpoint {self.endpoint} cannot be reached: {error}") from error
            if response.status_code not in _PATIENCE or attempt == self.retries:
                break
            time.sleep(_wait(response))
        if response.is_success:
            return response
        raise _refused(response)


def _wait(response: httpx.Response) -> float:
    text = response.headers.get("retry-after", "")
    return min(float(text), _LONGEST_WAIT) if text.isascii() and text.isdigit() else 1.0


def _refused(response: httpx.Response) -> EndpointError:
    status = response.status_code
    try:
        error = response.json()["error"]
        message, code = str(error["message"]), str(error["code"])
    except (ValueError, KeyError, TypeError):
        message, code = f"{response.url} answered {status} {response.reason_phrase}.", "unknown"
    return EndpointError(message, status=status, code=code)
