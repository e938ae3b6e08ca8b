"""The least that an answer costs: decode, resize and forward with ONNX Runtime, one picture after the other.

Run as `python -m benchmarks.loop PACKAGE TIMES PICTURE…`, in a process that holds nothing else.
"""

import io
import json
import sys
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from PIL import Image

Array = npt.NDArray[np.float32]


class Graph:
    """A package's graph with what its pictures have to be turned into; no code of Imago."""

    def __init__(self, package: Path) -> None:
        spec = json.loads((package / "spec.json").read_text(encoding="utf-8"))
        self.classes: list[str] = spec["classes"]
        self.architecture: str = spec["architecture"]
        self.size: int = spec["preprocessing"]["image_size"]
        self.mean, self.std = (np.array(spec["preprocessing"][key], dtype=np.float32) for key in ("mean", "std"))
        self.path = package / "model.onnx"

    def session(self) -> ort.InferenceSession:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        return ort.InferenceSession(str(self.path), options, providers=["CPUExecutionProvider"])

    def prepare(self, data: bytes) -> Array:
        """Return (1, 3, size, size) float32 of an encoded picture."""
        picture = Image.open(io.BytesIO(data)).convert("RGB").resize((self.size, self.size), Image.Resampling.BICUBIC)
        values = (np.asarray(picture, dtype=np.float32) / 255 - self.mean) / self.std
        return np.ascontiguousarray(values.transpose(2, 0, 1)[None])


def softmax(logits: Array) -> Array:
    exponent = np.exp(logits - logits.max())
    return np.asarray(exponent / exponent.sum(), dtype=np.float32)


def main() -> None:
    """Print the CPU milliseconds a picture as JSON, then wait for a line so that the memory can be looked at."""
    package, times, *files = sys.argv[1:]
    graph, pictures = Graph(Path(package)), [Path(file).read_bytes() for file in files]
    session = graph.session()

    def answer(index: int) -> Array:
        (logits,) = session.run(["logits"], {"image": graph.prepare(pictures[index % len(pictures)])})
        return softmax(logits[0])

    for index in range(len(pictures)):
        answer(index)
    begun = time.process_time()
    for index in range(int(times)):
        answer(index)
    print(json.dumps(1000 * (time.process_time() - begun) / int(times)), flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    main()
