"""Lets torchvision be imported beside a CPU build of torch.

The registry's torchvision wheel is built for CUDA: beside a CPU torch its C++ operators do not load, and
`import torchvision` fails because it registers a fake `nms` for an operator that nobody has declared. Declaring the
two schemas is enough: nothing here calls them. Import this before anything that imports torchvision.
"""

import importlib.util
from pathlib import Path
from typing import Any

import torch

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_torch: Any = torch  # its operator registry is untyped
_library: Any = None  # stays referenced: the schemas go with it


def _operators_load() -> bool:
    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        return True
    for folder in spec.submodule_search_locations:
        for library in Path(folder).glob("_C*.so"):
            try:
                _torch.ops.load_library(str(library))
            except OSError:
                return False
    return hasattr(_torch.ops.torchvision, "nms")


def declare_missing_operators() -> None:
    """Declare torchvision's `nms` and `qnms` where its own operators cannot be loaded; do nothing elsewhere."""
    global _library
    if _library is not None or _operators_load():
        return
    _library = _torch.library.Library("torchvision", "DEF")
    _library.define(f"nms{_SCHEMA}")
    _library.define(f"qnms{_SCHEMA}")


declare_missing_operators()
