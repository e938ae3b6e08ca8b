"""The services that a competent user writes by hand with FastAPI, that `benchmarks.serving` measures against.

`uvicorn --factory benchmarks.rivals:eager` or `:onnx`, with the model package in `RIVALS_PACKAGE`.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI, HTTPException, UploadFile
from PIL import UnidentifiedImageError

from benchmarks.loop import Array, Graph, softmax

PACKAGE = "RIVALS_PACKAGE"
TOP_K = 5


def onnx() -> FastAPI:
    """Serve the graph with ONNX Runtime, one thread."""
    graph = Graph(Path(os.environ[PACKAGE]))
    session = graph.session()

    def forward(batch: Array) -> Array:
        (logits,) = session.run(["logits"], {"image": batch})
        return np.asarray(logits[0])

    return _service(graph, forward)


def eager() -> FastAPI:
    """Serve the same weights in torch, one thread."""
    import imago.torchvision_compat  # noqa: F401, I001  (before timm)

    import timm
    import torch
    from safetensors.torch import load_file

    torch.set_num_threads(1)
    package = Path(os.environ[PACKAGE])
    graph = Graph(package)
    model = timm.create_model(graph.architecture, num_classes=len(graph.classes))
    model.load_state_dict(load_file(package / "weights.safetensors"))
    model.eval()

    @torch.inference_mode()
    def forward(batch: Array) -> Array:
        return np.asarray(model(torch.from_numpy(batch))[0].numpy())

    return _service(graph, forward)


def _service(graph: Graph, forward: Callable[[Array], Array]) -> FastAPI:
    app = FastAPI()

    @app.get("/readyz")
    async def ready() -> dict[str, str]:
        return {"status": "ready"}

    @app.post("/predict")
    def predict(image: UploadFile) -> dict[str, Any]:  # no coroutine: FastAPI runs it in a thread
        try:
            batch = graph.prepare(image.file.read())
        except (UnidentifiedImageError, OSError) as error:
            raise HTTPException(422, "not a picture") from error
        probabilities = softmax(forward(batch))
        top = probabilities.argsort()[::-1][:TOP_K]
        return {
            "predictions": [
                {"label": graph.classes[index], "probability": float(probabilities[index])} for index in top
            ]
        }

    return app
