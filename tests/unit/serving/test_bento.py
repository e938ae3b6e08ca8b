"""Names that a Bento may have, and the files that go into it."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from imago.dependencies import sources_of
from imago.errors import ConfigError, ImagoError
from imago.home import ROOT
from imago.serving import bento
from imago.serving.bento import code_digest, endpoint_sources, exact_tag, mirrors


@pytest.mark.parametrize(
    ("name", "version", "tag"),
    [("moths", "1", "moths:1"), ("Moths", "V2", "moths:v2"), ("m", "2026.1_a-b", "m:2026.1_a-b")],
)
def test_a_tag_is_exact_and_in_lower_case(name: str, version: str, tag: str) -> None:
    assert exact_tag(name, version) == tag


@pytest.mark.parametrize(
    ("name", "version"),
    [("moths", "latest"), ("my moths", "1"), ("", "1"), ("moths", ""), ("../moths", "1"), ("mo:ths", "1"),
     ("m" * 64, "1"), ("-moths", "1"), ("moths.", "1"), ("møths", "1")],
)  # fmt: skip
def test_what_no_tag_can_hold_is_refused(name: str, version: str) -> None:
    with pytest.raises(ConfigError, match="cannot name a Bento"):
        exact_tag(name, version)


def test_the_endpoint_runs_on_no_training_code() -> None:
    sources = endpoint_sources()
    assert {"imago/serving/app.py", "imago/evaluation/explain.py", "imago/serving/page/page.js"} <= set(sources)
    assert not [source for source in sources if source.startswith("imago/training") or source == "imago/config.py"]
    assert all((ROOT / source).is_file() for source in sources)


def test_a_bento_of_before_shadows_is_told_from_one_that_can_ask_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bento.MIRROR in endpoint_sources()
    monkeypatch.setattr(bento, "_existing", lambda *_: SimpleNamespace(path=str(tmp_path)))
    assert not mirrors("moths:1-0123abcd")
    (tmp_path / "src" / bento.MIRROR).parent.mkdir(parents=True)
    (tmp_path / "src" / bento.MIRROR).touch()
    assert mirrors("moths:1-0123abcd")
    monkeypatch.setattr(bento, "_existing", lambda *_: None)
    assert not mirrors("moths:1-0123abcd")


def test_a_question_deletes_nothing(tmp_path: Path) -> None:
    from bentoml._internal.models.model import ModelStore

    begun, unreadable, longer = (tmp_path / "moths" / version for version in ("1", "2", "30"))
    begun.mkdir(parents=True)
    (unreadable / "model.yaml").mkdir(parents=True)  # which reads as a broken disk does
    longer.mkdir()
    store = ModelStore(tmp_path)
    assert bento._existing(store, "moths:1") is None
    assert bento._existing(store, "moths:3") is None
    with pytest.raises(ImagoError, match="store cannot be read"):
        bento._existing(store, "moths:2")
    assert begun.is_dir()
    assert unreadable.is_dir()
    bento._clear(store, "moths:3")
    assert longer.is_dir()


def test_the_digest_follows_the_code() -> None:
    assert code_digest() == code_digest()
    assert len(code_digest()) == 16


def test_imports_are_followed_wherever_they_stand(tmp_path: Path) -> None:
    package = tmp_path / "imago"
    (package / "deep").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "deep" / "__init__.py").write_text("from imago import quiet\n")
    (package / "quiet.py").write_text("import os, json\n")
    (package / "start.py").write_text("def later():\n    from imago.deep.end import thing\n")
    (package / "deep" / "end.py").write_text("import imago.start\nthing = 1\n")
    (package / "unused.py").write_text("")
    assert sources_of("imago.start", tmp_path) == [
        "imago/__init__.py", "imago/deep/__init__.py", "imago/deep/end.py", "imago/quiet.py", "imago/start.py",
    ]  # fmt: skip
