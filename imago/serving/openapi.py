"""The endpoint's OpenAPI description, as `/docs.json` gives it."""

from collections.abc import Mapping, Sequence
from typing import Any

from imago.serving import examples
from imago.serving.reports import REPORTS
from imago.serving.request_id import HEADER

Schema = dict[str, Any]
Codes = Mapping[int, tuple[str, ...]]
"""The codes with which a route refuses, by status."""

_STRING: Schema = {"type": "string"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_PROBABILITY: Schema = {"type": "number", "minimum": 0, "maximum": 1}
_BYTES: Schema = {"type": "string", "format": "binary"}
_PICTURE: Schema = {**_BYTES, "minLength": 1}
_PREDICTION_ID: Schema = {"type": "string", "pattern": "^[0-9a-f]{32}$"}

_STATUSES = {
    400: "Malformed: not a form, a field missing, an empty picture.",
    401: "No key, or the wrong one.",
    404: "There is no such thing.",
    408: "The upload took too long.",
    413: "Too many bytes, pixels or pictures.",
    415: "Not a picture, or not the content type that is asked for.",
    421: "The request names a host that this endpoint is not.",
    422: "A picture that cannot be decoded.",
    429: "Too many requests of this client; see Retry-After.",
    500: "A fault of the endpoint's own.",
    503: "Overloaded or not ready; see Retry-After.",
}
_LATER = (429, 503)

_ANY: Codes = {421: ("wrong_host",), 500: ("internal",), 503: ("not_ready",)}
_GUARDED: Codes = {401: ("no_key", "wrong_key"), 429: ("too_many_requests",)}
_FORM: Codes = {
    400: ("malformed", "missing_field"),
    408: ("too_slow",),
    413: ("too_many_bytes", "too_many_parts"),
    415: ("not_multipart",),
    503: ("overloaded",),
}
_ONE: Codes = {
    400: ("empty_picture", "too_many_pictures"),
    413: ("too_many_pixels",),
    415: ("not_a_picture",),
    422: ("undecodable",),
}
_SEVERAL: Codes = {413: ("too_many_pictures",)}
_FEEDBACK: Codes = {
    400: ("malformed", "unknown_label"),
    404: ("not_kept", "unknown_prediction"),
    408: ("too_slow",),
    413: ("too_many_bytes",),
    415: ("not_json",),
    503: ("not_kept", "overloaded"),
}
_REPORTS: Codes = {404: ("no_reports",)}
_REPORT: Codes = {404: ("no_report", "no_reports", "not_found")}


def describe(title: str, version: str, *, classes: Sequence[str] = (), guarded: bool = False) -> Schema:
    """Return the OpenAPI 3 document of a model's endpoint: of one that tells these classes, and asks for a key."""
    return {
        "openapi": "3.0.3",
        "info": {"title": title, "version": version},
        "security": [*([] if guarded else [{}]), {"bearer": []}, {"key": []}],
        "paths": _paths(classes),
        "components": {
            "schemas": _schemas(classes),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }


def _paths(classes: Sequence[str]) -> Schema:
    prediction = _json("Prediction", examples.PREDICTION)
    batch = _json("Batch", examples.BATCH)
    feedback = _json("Feedback", examples.FEEDBACK | {"label": classes[0]} if classes else examples.FEEDBACK)
    png = {"image/png": {"schema": _BYTES, "example": examples.PNG}}
    page = _text("html", "<!doctype html>…")
    described = {"application/json": {"schema": {"type": "object"}, "example": {"openapi": "3.0.3", "paths": {}}}}
    return {
        "/predict": {
            "post": _operation("Predict one picture.", prediction, _GUARDED, _FORM, _ONE, takes=_upload("image"))
        },
        "/predict_batch": {
            "post": _operation(
                "Predict several pictures; one that cannot be read spoils no other.",
                batch, _GUARDED, _FORM, _SEVERAL, takes=_upload("images", several=True),
            )
        },
        "/explain": {
            "post": _operation(
                "Show where in a picture the answer comes from; `/info` says under `heat_map` how it is found.",
                png, _GUARDED, _FORM, _ONE, takes=_upload("image"),
            )
        },
        "/feedback": {
            "post": _operation(
                "Say what a predicted picture really shows.", feedback, _GUARDED, _FEEDBACK, takes=feedback
            )
        },
        "/info": {
            "get": _operation("The model, its classes and the limits.", _json("Info", examples.INFO), _GUARDED)
        },
        "/card": {"get": _operation("The model card, in Markdown.", _text("plain", examples.CARD), _GUARDED)},
        "/metrics": {"get": _operation("Counts for Prometheus.", _text("plain", examples.METRICS), _GUARDED)},
        "/livez": {"get": _open("Whether the process lives.", _json("Alive", examples.ALIVE))},
        "/readyz": {
            "get": _open(
                "Whether predictions are answered, and what does not work meanwhile.", _json("Ready", examples.READY)
            )
        },
        "/ui": {"get": _open("A page to try the model on.", page)},
        "/reports": {
            "get": _operation("The reports of the model, where they are shown.", page, _GUARDED, _REPORTS)
        },
        "/reports/{report}": {
            "get": {
                **_operation("One of them.", page | _text("plain", examples.CARD), _GUARDED, _REPORT),
                "parameters": [_part_of_path("report", tuple(REPORTS))],
            }
        },
        "/docs.json": {"get": _open("This description.", described)},
    }  # fmt: skip


def _schemas(classes: Sequence[str]) -> Schema:
    tested = {"accuracy": _PROBABILITY, "low": _PROBABILITY, "high": _PROBABILITY, "pictures": _COUNT}
    limits = {
        "upload_bytes": _COUNT,
        "pixels": _COUNT,
        "batch_pictures": _COUNT,
        "batch_bytes": _COUNT,
        "formats": _list(_STRING),
    }
    return {
        "Model": _object({"name": _STRING, "version": _STRING}),
        "Prediction": _object(
            {
                "prediction_id": _PREDICTION_ID,
                "model": _ref("Model"),
                "predictions": _list(_object({"label": _STRING, "probability": _PROBABILITY})),
                "rejected": {"type": "boolean", "description": "Whether the model is too unsure to be believed."},
                "reason": {"type": "string", "nullable": True},
            }
        ),
        "Batch": _object({"model": _ref("Model"), "results": _list({"oneOf": [_ref("Prediction"), _ref("Error")]})}),
        "Feedback": _object(
            {
                "prediction_id": _PREDICTION_ID,
                "label": {"type": "string", "enum": list(classes)} if classes else _STRING,
            }
        ),
        "Info": _object(
            {
                "model": _ref("Model"),
                "architecture": _STRING,
                "fingerprint": _STRING,
                "created": _STRING,
                "metrics": {"type": "object", "additionalProperties": {"type": "number", "nullable": True}},
                "tested": {
                    **_object(tested),
                    "nullable": True,
                    "description": "The accuracy on test pictures and its 95% interval, where its Bento says them.",
                },
                "classes": _list(_STRING),
                "image_size": _COUNT,
                "reject_threshold": _PROBABILITY,
                "top_k": _COUNT,
                "feedback": {"type": "boolean", "description": "Whether it is taken."},
                "reports": {"type": "boolean", "description": "Whether `/reports` shows them."},
                "heat_map": {"type": "string", "enum": ["class_activation", "occlusion"]},
                "limits": _object(limits),
            }
        ),
        "Alive": _object({"status": {"type": "string", "enum": ["alive"]}}),
        "Ready": _object(
            {
                "status": {"type": "string", "enum": ["ready"]},
                "degraded": _list(_object({"part": _STRING, "message": _STRING})),
            }
        ),
        "Error": _object({"error": _object({"code": _STRING, "message": _STRING, "request_id": _STRING})}),
    }


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(properties: Schema) -> Schema:
    return {"type": "object", "required": list(properties), "properties": properties}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _json(name: str, example: Any) -> Schema:
    return {"application/json": {"schema": _ref(name), "example": example}}


def _text(kind: str, example: str) -> Schema:
    return {f"text/{kind}": {"schema": _STRING, "example": example}}


def _part_of_path(name: str, values: tuple[str, ...]) -> Schema:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "enum": list(values)}}


def _upload(field: str, *, several: bool = False) -> Schema:
    form = _object({field: {**_list(_PICTURE), "minItems": 1} if several else _PICTURE})
    return {"multipart/form-data": {"schema": form}}


def _operation(summary: str, answers: Schema, *refuses: Codes, takes: Schema | None = None) -> Schema:
    body = {"requestBody": {"required": True, "content": takes}} if takes else {}
    answered = {"200": _response("OK", answers)}
    return {"summary": summary, **body, "responses": answered | _refusals(*refuses, _ANY)}


def _open(summary: str, answers: Schema) -> Schema:
    """Return an operation for which nobody is asked for a key."""
    return {**_operation(summary, answers), "security": []}


def _refusals(*refuses: Codes) -> Schema:
    found: dict[int, list[str]] = {}
    for codes in refuses:
        for status, names in codes.items():
            found.setdefault(status, []).extend(names)
    return {str(status): _refusal(status, found[status]) for status in sorted(found)}


def _refusal(status: int, codes: list[str]) -> Schema:
    shown = {code: {"value": examples.refusal(status, code)} for code in sorted(codes)}
    content = {"application/json": {"schema": _ref("Error"), "examples": shown}}
    return _response(_STATUSES[status], content, later=status in _LATER)


def _response(description: str, content: Schema, *, later: bool = False) -> Schema:
    headers: Schema = {HEADER: {"description": "The request's id, also in the log.", "schema": _STRING}}
    if later:
        headers["Retry-After"] = {"description": "Seconds to wait.", "schema": _COUNT, "example": 1}
    return {"description": description, "headers": headers, "content": content}
