"""Cache dependencies: the code a step calls, and all that code imports."""

from pathlib import Path

import pytest
from zenml.utils import source_utils

from steps import code
from steps.code import code_of, key_of


def test_dependencies_follow_imports_through_the_domain() -> None:
    files = code_of("imago.serving.package")
    assert "imago/serving/package.py" in files
    assert "imago/data/transforms.py" in files
    assert "imago/errors.py" in files
    assert "imago/training/trainer.py" not in files


def test_training_depends_on_the_reading_of_pictures() -> None:
    files = code_of("imago.training.trainer")
    assert {"imago/training/trainer.py", "imago/data/transforms.py", "imago/data/dataset.py"} <= set(files)


def test_work_goes_on_only_where_what_decides_it_its_code_and_its_libraries_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sweep.py").write_text("first")
    monkeypatch.setattr(code, "code_of", lambda _: [str(tmp_path / "sweep.py")])
    monkeypatch.setattr(code, "version", lambda library: f"{library} 1")

    def key(*decided: object) -> str:
        return key_of(*decided, code="imago.training.sweep", packages=("torch", "optuna"))

    before = key("pictures", 1)
    assert key("pictures", 1) == before
    assert key("pictures", 2) != before
    with monkeypatch.context() as newer:
        newer.setattr(code, "version", lambda library: f"{library} {2 if library == 'optuna' else 1}")
        assert key("pictures", 1) != before
    (tmp_path / "sweep.py").write_text("second")
    assert key("pictures", 1) != before


def test_a_cache_does_not_outlive_the_libraries_that_computed_it(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = code.cached_by("imago.training.trainer")
    assert policy.cache_func is not None
    compute = source_utils.load(policy.cache_func)
    before = compute()
    assert "torch " in before
    assert "timm " in before
    monkeypatch.setattr(code, "version", lambda _: "0.0")
    assert compute() != before
