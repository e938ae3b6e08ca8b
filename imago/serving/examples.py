"""What the endpoint's answers look like: one example of each, for its OpenAPI description."""

from typing import Any

_PREDICTION_ID = "9f1c6f0e6c0b4f0f8f5d6f1f2a3b4c5d"
_REQUEST_ID = "b7a1d0c2e3f445668790a1b2c3d4e5f6"

MODEL = {"name": "moths", "version": "7"}

PREDICTION = {
    "prediction_id": _PREDICTION_ID,
    "model": MODEL,
    "predictions": [
        {"label": "LUNA MOTH", "probability": 0.941},
        {"label": "ATLAS MOTH", "probability": 0.037},
        {"label": "GARDEN TIGER MOTH", "probability": 0.022},
    ],
    "rejected": False,
    "reason": None,
}

FEEDBACK = {"prediction_id": _PREDICTION_ID, "label": "LUNA MOTH"}

INFO = {
    "model": MODEL,
    "architecture": "mobilenetv3_small_100",
    "fingerprint": "1f0c5a7be2d94c83",
    "created": "2026-05-04T09:30:00+00:00",
    "metrics": {"val_accuracy": 0.96, "val_loss": 0.14},
    "tested": {"accuracy": 0.94, "low": 0.916, "high": 0.958, "pictures": 500},
    "classes": ["ATLAS MOTH", "GARDEN TIGER MOTH", "LUNA MOTH"],
    "image_size": 224,
    "reject_threshold": 0.5,
    "top_k": 3,
    "feedback": True,
    "reports": False,
    "heat_map": "class_activation",
    "limits": {
        "upload_bytes": 10_000_000,
        "pixels": 50_000_000,
        "batch_pictures": 64,
        "batch_bytes": 40_065_536,
        "formats": ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"],
    },
}

ALIVE = {"status": "alive"}

READY = {
    "status": "ready",
    "degraded": [
        {
            "part": "predictions",
            "message": "Predictions are answered, and cannot be kept: 12 wait in memory, 0 are lost.",
        }
    ],
}

METRICS = (
    "# HELP imago_requests_total Requests by route and status.\n"
    "# TYPE imago_requests_total counter\n"
    'imago_requests_total{route="/predict",status="200"} 1027.0\n'
)

CARD = "# moths\n\nTells 3 classes of pictures apart. …\n"

PNG = "\u0089PNG\r\n\u001a\n…"
"""How a PNG begins, each byte written as the character of that number: JSON holds no bytes."""

REFUSALS: dict[int, dict[str, str]] = {
    400: {
        "empty_picture": "The picture is empty: it has no bytes.",
        "malformed": "The form breaks off before its last boundary.",
        "missing_field": "The form has no field `image`; it has 'picture'.",
        "too_many_pictures": "The field `image` holds several pictures; use /predict_batch for them.",
        "unknown_label": "'LUNAR MOTH' is not one of the 3 classes. Did you mean 'LUNA MOTH'?",
    },
    401: {
        "no_key": "A key is needed: send it as `Authorization: Bearer KEY` or `X-API-Key: KEY`.",
        "wrong_key": "The key is not the right one.",
    },
    404: {
        "no_report": "There is no such report of this model yet: drift.html.",
        "no_reports": "This endpoint shows no reports: deploy.reports is off.",
        "not_found": "There is nothing at /reports/other.html; see /docs.json.",
        "not_kept": "This endpoint keeps no predictions, so it takes no feedback.",
        "unknown_prediction": f"No prediction '{_PREDICTION_ID}' is known.",
    },
    408: {"too_slow": "The upload took more than 30 seconds."},
    413: {
        "too_many_bytes": "A picture may have at most 10,000,000 bytes.",
        "too_many_parts": "The form has more than 256 parts.",
        "too_many_pictures": "A request takes at most 64 pictures.",
        "too_many_pixels": "The picture cannot be used: it has 3,600,000,000 pixels, at most 50,000,000 are taken.",
    },
    415: {
        "not_a_picture": "The picture cannot be used: it is not one of JPEG, PNG, WEBP, GIF, BMP, TIFF.",
        "not_json": "The body must be JSON, with `Content-Type: application/json`.",
        "not_multipart": "The request is image/png: send a multipart form (`multipart/form-data`) with the picture in "
        "the field `image`.",
    },
    421: {"wrong_host": "This endpoint is not asked for as 'a.org', but as localhost: deploy.hosts lists its names."},
    422: {"undecodable": "The picture cannot be used: it is truncated."},
    429: {"too_many_requests": "Too many requests: 10 a second are answered. Ask again in 1 s."},
    500: {"internal": "Something went wrong here; the server's log says what."},
    503: {
        "not_kept": "Feedback cannot be kept just now.",
        "not_ready": "The model is not loaded.",
        "overloaded": "Too many requests are waiting. Ask again in a second.",
    },
}
"""What each refusal says, by status and code."""


def refusal(status: int, code: str) -> dict[str, Any]:
    """Return the body of a refusal."""
    return {"error": {"code": code, "message": REFUSALS[status][code], "request_id": _REQUEST_ID}}


BATCH = {"model": MODEL, "results": [PREDICTION, refusal(415, "not_a_picture")]}
