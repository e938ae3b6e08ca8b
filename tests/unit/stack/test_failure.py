"""Which of our own errors is behind a failed run."""

from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from zenml.exceptions import RunInterruptedException

from imago.errors import ConfigError, DataRefused, ImagoError
from stack.failure import interrupted, reason


class ContainerError(Exception):
    """What the Docker client raises: the container's standard error, in bytes."""

    def __init__(self, stderr: bytes) -> None:
        super().__init__("Command returned non-zero exit status 1")
        self.stderr = stderr


def test_an_error_of_ours_in_the_chain_is_returned_itself():
    refused = DataRefused("one class only")
    failed = RuntimeError("the step failed")
    failed.__cause__ = refused
    assert reason(failed) is refused


@pytest.mark.parametrize(
    ("line", "kind", "text"),
    [
        ("imago.errors.DataRefused: one class only: moth", DataRefused, "one class only: moth"),
        ("imago.errors.ConfigError: no such architecture", ConfigError, "no such architecture"),
        ("imago.monitoring.alerts.AlertError: nobody there", ImagoError, "nobody there"),
    ],
)
def test_an_error_of_ours_is_read_out_of_what_a_container_printed(line, kind, text):
    found = reason(ContainerError(f"Traceback (most recent call last):\n  File …\n{line}\n".encode()))
    assert type(found) is kind
    assert str(found) == text
    assert found.exit_code == kind.exit_code


def test_another_error_is_nobodys():
    assert reason(ContainerError(b"RuntimeError: operator torchvision::nms does not exist\n")) is None
    assert reason(ValueError("imago is a moth")) is None


@pytest.mark.parametrize("cause", [OSError(28, "No space left"), ValueError("(sqlite3) database or disk is full")])
def test_a_full_disk_is_said_whatever_failed_after_it(cause: Exception) -> None:
    failed = RuntimeError("MLflow did not end the run")
    failed.__context__ = cause
    found = reason(failed)
    assert isinstance(found, ImagoError)
    assert str(found).startswith("The disk is full: make room, or set IMAGO_HOME")


def test_what_fails_on_the_way_out_of_an_interrupt_is_an_interrupt() -> None:
    def end_run() -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            try:
                raise OSError("database is locked")
            except OSError as error:
                raise RuntimeError("MLflow did not end the run") from error

    with pytest.raises(RuntimeError) as ended:
        end_run()
    assert interrupted(ended.value)
    assert not interrupted(RuntimeError("something else"))


def test_what_mlflow_makes_of_an_interrupt_is_an_interrupt(tmp_path: Path) -> None:
    store = SqlAlchemyStore(f"sqlite:///{tmp_path}/mlflow.db", str(tmp_path))

    def log() -> None:
        with store.ManagedSessionMaker():
            raise RunInterruptedException("The execution was interrupted.")

    with pytest.raises(MlflowException) as met:
        log()
    assert interrupted(met.value)
