"""Cache dependencies: the code a step calls, and all that code imports."""

from steps.code import code_of


def test_dependencies_follow_imports_through_the_domain() -> None:
    files = code_of("imago.serving.package")
    assert "imago/serving/package.py" in files
    assert "imago/data/transforms.py" in files
    assert "imago/errors.py" in files
    assert "imago/training/trainer.py" not in files


def test_training_depends_on_the_reading_of_pictures() -> None:
    files = code_of("imago.training.trainer")
    assert {"imago/training/trainer.py", "imago/data/transforms.py", "imago/data/dataset.py"} <= set(files)
