"""Bentos built in a process of their own: BentoML reads where its stores are once, when it is imported."""

import os
import subprocess
import sys
from pathlib import Path

from imago.home import ROOT
from imago.serving.package import ModelPackage

BUILD = """
import sys
from pathlib import Path
from imago.serving.answers import Tested
from imago.serving.bento import build_bento
from imago.serving.package import ModelPackage
tested = Tested(accuracy=0.9, low=0.8, high=0.95, pictures=50)
card = "# moths\\n\\n## Test\\n"
print(build_bento(ModelPackage(Path(sys.argv[1])), name=sys.argv[2], version=sys.argv[3], card=card, tested=tested))
"""


def build(home: Path, package: ModelPackage, name: str, version: str) -> "subprocess.CompletedProcess[str]":
    """Build a Bento of a package in the stores under `home`; its standard output is the tag."""
    return subprocess.run(
        [sys.executable, "-c", BUILD, str(package.path), name, version],
        cwd=ROOT,
        env={**os.environ, "BENTOML_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
