"""What is the same for every answer: the request's id and the headers that keep a browser from being misled."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from imago.serving import request_id

SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
)
_NOT_KEPT = (b"cache-control", b"no-store")
_MARK = "imago.request_id"


class Envelope:
    """An ASGI middleware; around another one it does nothing, so that both may stand where an answer is given."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or _MARK in scope:
            await self.app(scope, receive, send)
            return
        given = scope[_MARK] = request_id.request_id_of(scope["headers"])
        request_id.current.set(given)  # for good: the server logs a failure in this task when we have returned

        async def sealed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                if not any(name.lower() == b"cache-control" for name, _ in headers):
                    headers.append(_NOT_KEPT)  # an answer about somebody's picture is nobody else's
                message["headers"] = [*headers, *SECURITY_HEADERS, (b"x-request-id", given.encode())]
            await send(message)

        await self.app(scope, receive, sealed)
