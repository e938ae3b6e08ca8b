"""Errors: the nearest known names, and what is said where the clean-up fails, too."""

import pytest

import cli
from imago.errors import DeploymentFailed, as_note, did_you_mean


def test_the_nearest_name_is_offered() -> None:
    assert did_you_mean("resnet5O", ["resnet50", "vgg11"]) == " Did you mean 'resnet50'?"


def test_nothing_is_offered_where_nothing_is_near() -> None:
    assert did_you_mean("zzz", ["resnet50", "vgg11"]) == ""


def test_what_fails_in_the_clean_up_is_noted_and_does_not_take_the_first_error_s_place() -> None:
    first = DeploymentFailed("it did not start")
    with as_note(first, "the one before does not serve"):
        raise OSError("no disk")
    assert first.__notes__ == ["the one before does not serve: no disk"]


def test_an_interrupt_in_the_clean_up_is_not_held_back() -> None:
    with pytest.raises(KeyboardInterrupt), as_note(DeploymentFailed("it did not start"), "what follows"):
        raise KeyboardInterrupt


def test_the_command_line_says_both_errors_and_keeps_the_code_of_the_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        first = DeploymentFailed("it did not start")
        first.add_note("of a library, for its traceback")
        with as_note(first, "version 2 may still stand for production"):
            raise OSError("no disk")
        raise first

    monkeypatch.setattr(cli.front, "main", fail)
    monkeypatch.setattr("sys.argv", ["run.py"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 5
    assert capsys.readouterr().err == "error: it did not start (version 2 may still stand for production: no disk)\n"
