"""How Sphinx builds these pages; `make docs` runs it."""

import importlib.util
import sys
from pathlib import Path

from sphinx.application import Sphinx

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))

project = "Imago"
project_copyright = "Imago's authors"
extensions = ["myst_parser"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = "Imago"
exclude_patterns = ["_build"]


def setup(app: Sphinx) -> None:
    """Write the reference pages before they are read."""
    app.connect("builder-inited", _write_reference)


def _write_reference(_: Sphinx) -> None:
    spec = importlib.util.spec_from_file_location("reference", DOCS / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    reference.write()
