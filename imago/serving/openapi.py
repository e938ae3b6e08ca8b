"""The endpoint's OpenAPI description, as `/docs.json` gives it."""

from typing import Any

Schema = dict[str, Any]

_STRING: Schema = {"type": "string"}
_PROBABILITY: Schema = {"type": "number", "minimum": 0, "maximum": 1}

_REFUSALS = {
    "400": "Malformed: not a form, a field missing, an empty picture.",
    "401": "No key, or the wrong one.",
    "404": "No such path, or no such prediction.",
    "408": "The upload took too long.",
    "413": "Too many bytes, pixels or pictures.",
    "415": "Not a picture, or not the content type that is asked for.",
    "422": "A picture that cannot be decoded.",
    "429": "Too many requests of this client; see Retry-After.",
    "503": "Overloaded or not ready; see Retry-After.",
}


def describe(title: str, version: str) -> Schema:
    """Return the OpenAPI 3 document of a model's endpoint."""
    model = _object({"name": _STRING, "version": _STRING})
    prediction = _object(
        {
            "prediction_id": _STRING,
            "model": _ref("Model"),
            "predictions": _list(_object({"label": _STRING, "probability": _PROBABILITY})),
            "rejected": {"type": "boolean", "description": "Whether the model is too unsure to be believed."},
            "reason": {"type": "string", "nullable": True},
        }
    )
    error = _object({"error": _object({"code": _STRING, "message": _STRING, "request_id": _STRING})})
    batch = _object({"model": _ref("Model"), "results": _list({"oneOf": [_ref("Prediction"), _ref("Error")]})})
    feedback = _object({"prediction_id": _STRING, "label": _STRING})
    return {
        "openapi": "3.0.3",
        "info": {"title": title, "version": version},
        "security": [{}, {"bearer": []}, {"key": []}],
        "paths": {
            "/predict": {"post": _upload("Predict one picture.", "image", several=False, answer=_ref("Prediction"))},
            "/predict_batch": {
                "post": _upload("Predict several pictures; one that cannot be read spoils no other.", "images",
                                several=True, answer=_ref("Batch")),
            },
            "/explain": {
                "post": _upload("Show where in a picture the answer comes from; `/info` says how: `heat_map` is "
                                "`class_activation` or `occlusion`.", "image", several=False),
            },
            "/feedback": {
                "post": {
                    "summary": "Say what a predicted picture really shows.",
                    "requestBody": {"required": True, "content": {"application/json": {"schema": _ref("Feedback")}}},
                    "responses": _responses(_ref("Feedback"), "400", "401", "404", "413", "415"),
                }
            },
            "/info": {"get": _plain("The model, its classes and the limits.", "application/json")},
            "/metrics": {"get": _plain("Counts for Prometheus.", "text/plain")},
            "/livez": {"get": _plain("Whether the process lives.", "text/plain")},
            "/readyz": {"get": _plain("Whether predictions are answered.", "text/plain")},
            "/ui": {"get": _plain("A page to try the model on.", "text/html")},
        },
        "components": {
            "schemas": {"Model": model, "Prediction": prediction, "Batch": batch, "Feedback": feedback, "Error": error},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }  # fmt: skip


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(properties: Schema) -> Schema:
    return {"type": "object", "required": list(properties), "properties": properties}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _plain(summary: str, kind: str) -> Schema:
    return {"summary": summary, "responses": {"200": {"description": "OK", "content": {kind: {}}}}}


def _upload(summary: str, field: str, *, several: bool, answer: Schema | None = None) -> Schema:
    picture: Schema = {"type": "string", "format": "binary"}
    form = _object({field: _list(picture) if several else picture})
    codes = ("400", "401", "408", "413", "415", "422", "429", "503")
    return {
        "summary": summary,
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": form}}},
        "responses": _responses(answer, *codes),
    }


def _responses(answer: Schema | None, *refusals: str) -> Schema:
    content: Schema = {"application/json": {"schema": answer}}
    if answer is None:
        content = {"image/png": {"schema": {"type": "string", "format": "binary"}}}
    error = {"application/json": {"schema": _ref("Error")}}
    responses: Schema = {"200": {"description": "OK", "content": content}}
    return responses | {code: {"description": _REFUSALS[code], "content": error} for code in refusals}
