"""What the endpoint says when it does not answer: one JSON shape, one code a reason."""

from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from imago.serving import request_id
from imago.serving.runtime import Unreadable

_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"BM", b"II*\x00", b"MM\x00*")

_OF_UNREADABLE = {"not_a_picture": 415, "too_many_pixels": 413, "undecodable": 422}


class Refusal(Exception):  # noqa: N818 - it is an answer, not a fault
    """A request that is not answered; its text is written for the client."""

    def __init__(self, status: int, code: str, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message.encode("utf-8", "replace").decode()  # what a client sent may hold lone surrogates
        self.retry_after = retry_after

    def body(self) -> dict[str, dict[str, str]]:
        error = {"code": self.code, "message": self.message, "request_id": request_id.current.get()}
        return {"error": error}

    def response(self) -> JSONResponse:
        headers: dict[str, str] = {}
        if self.retry_after is not None:
            headers["Retry-After"] = str(self.retry_after)
        if self.status == HTTPStatus.UNAUTHORIZED:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse(self.body(), self.status, headers)


def refusal_of_picture(answer: Unreadable, picture: bytes) -> Refusal:
    """Return the refusal of a picture that the runtime could not read."""
    if not picture:
        return Refusal(400, "empty_picture", "The picture is empty: it has no bytes.")
    code: str = answer.code
    if code == "not_a_picture" and is_signed_as_picture(picture):
        code = "undecodable"
    return Refusal(_OF_UNREADABLE[code], code, f"The picture cannot be used: {answer.message}.")


def is_signed_as_picture(data: bytes) -> bool:
    """Tell whether bytes begin the way a picture's file does, whatever follows."""
    return data.startswith(_SIGNATURES) or (data[:4] == b"RIFF" and data[8:12] == b"WEBP")


async def answer_refusal(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return error.response()


async def answer_http_exception(request: Request, error: Exception) -> Response:
    """Give Starlette's own 404 and 405 the shape of every other error."""
    assert isinstance(error, HTTPException)
    if error.status_code == HTTPStatus.NOT_FOUND:
        return Refusal(404, "not_found", f"There is nothing at {request.url.path}; see /docs.json.").response()
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        message = f"{request.url.path} does not take {request.method}."
        response = Refusal(405, "method_not_allowed", message).response()
        response.headers.update(error.headers or {})
        return response
    return Refusal(error.status_code, "refused", error.detail).response()


async def answer_nobody(_: Request, __: Exception) -> Response:
    """Answer a client that has hung up: nobody reads it, but it is counted, and not as our own fault."""
    return Response(status_code=499)


async def answer_failure(_: Request, __: Exception) -> Response:
    """Answer what is our own fault; the server's log holds the traceback."""
    return failure().response()


def failure() -> Refusal:
    return Refusal(500, "internal", "Something went wrong here; the server's log says what.")
