"""How the endpoint's log looks: a line of text or a JSON object each, with the id of the request that it is about."""

import logging
import sys
from collections.abc import Callable
from typing import TextIO

from imago.serving import request_id
from imago.serving.settings import LogFormat

_TEXT = "%(asctime)s [%(levelname)s] %(name)s: %(message)s"
_LIBRARIES = ("bentoml", "uvicorn.error", "circus")


class Log(logging.StreamHandler[TextIO]):
    """Writes lines, and goes on where one could not be written: a full disk ends no request."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self.lost = 0  # lines
        self.failing = False
        self.on_lost: Callable[[], object] = lambda: None  # is called for each

    def emit(self, record: logging.LogRecord) -> None:
        before = self.lost
        super().emit(record)
        self.failing = self.lost > before

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        if isinstance(sys.exc_info()[1], OSError):
            self.lost += 1
            self.on_lost()
        else:
            super().handleError(record)


def configure(log_format: LogFormat) -> Log:
    """Let everything that this process logs go to standard error in one format, and return what writes it.

    With `json` each request gets a line, too: whoever asks for it collects the log, and does not only read it.
    """
    handler = Log(sys.stderr)
    handler.addFilter(_add_request_id)
    handler.setFormatter(_json() if log_format == "json" else _Text(_TEXT))
    logging.root.handlers = [handler]
    for name in _LIBRARIES:  # BentoML gives each a handler of its own, so that some lines come twice
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], True
    logging.captureWarnings(True)
    logging.getLogger("imago.access").setLevel(logging.INFO if log_format == "json" else logging.WARNING)
    return handler


class _Text(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        given = getattr(record, "request_id", None)
        return super().formatMessage(record) + (f" (request {given})" if given else "")


def _add_request_id(record: logging.LogRecord) -> bool:
    record.request_id = request_id.current.get() or None
    return True


def _json() -> logging.Formatter:
    from pythonjsonlogger.json import JsonFormatter

    return JsonFormatter(
        ("levelname", "name", "message", "request_id"),
        rename_fields={"levelname": "level", "name": "logger", "exc_info": "traceback"},
        timestamp="time",
    )
