"""How the endpoint's log looks: a line of text or a JSON object each, with the id of the request that it is about."""

import logging
import sys

from imago.serving import request_id
from imago.serving.settings import LogFormat

_TEXT = "%(asctime)s [%(levelname)s] %(name)s: %(message)s"
_LIBRARIES = ("bentoml", "uvicorn.error", "circus")


def configure(log_format: LogFormat) -> None:
    """Let everything that this process logs go to standard error in one format.

    With `json` each request gets a line, too: whoever asks for it collects the log, and does not only read it.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_add_request_id)
    handler.setFormatter(_json() if log_format == "json" else _Text(_TEXT))
    logging.root.handlers = [handler]
    for name in _LIBRARIES:  # BentoML gives each a handler of its own, so that some lines come twice
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], True
    logging.captureWarnings(True)
    logging.getLogger("imago.access").setLevel(logging.INFO if log_format == "json" else logging.WARNING)


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
