"""The endpoint stays light: what it must never load is not loaded by importing it, nor by answering."""

import subprocess
import sys
from pathlib import Path

import pytest

from imago.home import ROOT
from tests.packages import make_package, picture_bytes

HEAVY = (
    "torch",
    "torchvision",
    "timm",
    "pytorch_lightning",
    "lightning",
    "pandas",
    "sklearn",
    "scipy",
    "zenml",
    "mlflow",
)

ASK = """
import sys
from pathlib import Path
from imago.monitoring.prediction_store import PredictionStore
from imago.serving.app import Application
from imago.serving.metrics import Metrics
from imago.serving.package import ModelPackage
from imago.serving.runtime import Runtime
from imago.serving.settings import ServingSettings
import imago.serving.service

folder, heavy = Path(sys.argv[1]), sys.argv[2].split(",")
settings = ServingSettings(predictions=folder / "predictions.sqlite")
application = Application(Runtime(ModelPackage(folder / "package")), settings, Metrics(), version="1")
picture = (folder / "picture.png").read_bytes()
(((answer,), _),) = application._predict([[picture]])
told = application._told(answer, keep=True)
assert application._explain(picture).startswith(b"\\x89PNG")
application.close()
assert PredictionStore(settings.predictions).count() == 1
print(told["predictions"][0]["label"], [name for name in heavy if name in sys.modules])
"""


@pytest.mark.parametrize("maps", [False, True])
def test_answering_loads_nothing_heavy(tmp_path: Path, maps: bool) -> None:
    make_package(tmp_path / "package", maps=maps)
    (tmp_path / "picture.png").write_bytes(picture_bytes("green"))
    done = subprocess.run(
        [sys.executable, "-c", ASK, str(tmp_path), ",".join(HEAVY)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "green []"
