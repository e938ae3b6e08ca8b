"""The doctor says what is wrong and what to do, and its exit code whether Imago can be used."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cli import doctor as module
from cli.doctor import Row, doctor
from imago.config import Config, DeployConfig
from imago.errors import ConfigError


@pytest.fixture
def configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("IMAGO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("IMAGO_REPORTS", str(tmp_path / "reports"))
    path = tmp_path / "own.yaml"
    path.write_text("seed: 0\n", encoding="utf-8")
    return str(path)


def run(monkeypatch: pytest.MonkeyPatch, configuration: str, *rows: Row, arguments: tuple[str, ...] = ()) -> Result:
    monkeypatch.setattr(module, "LOOKS", (lambda _: iter(rows),))
    return CliRunner().invoke(doctor, ["--config", configuration, *arguments], catch_exceptions=False)


def test_with_everything_in_place_the_exit_code_is_0(configuration: str, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(monkeypatch, configuration, Row("python", "ok", "3.11.7"))
    assert result.exit_code == 0
    assert "ok    python  3.11.7" in result.stdout
    assert result.stdout.endswith("Ready.\n")


def test_a_warning_is_usable_and_says_what_to_do(configuration: str, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(monkeypatch, configuration, Row("disk", "warn", "2.0 GB free", "free some space"))
    assert result.exit_code == 0
    assert "→ free some space" in result.stdout


def test_a_failure_exits_with_1(configuration: str, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(monkeypatch, configuration, Row("disk", "fail", "0.1 GB free", "free some space"))
    assert result.exit_code == 1
    assert "Not ready" in result.stdout


def test_json_is_one_object(configuration: str, monkeypatch: pytest.MonkeyPatch) -> None:
    row = Row("disk", "fail", "0.1 GB free", "free some space")
    result = run(monkeypatch, configuration, row, arguments=("--json",))
    assert result.exit_code == 1
    assert json.loads(result.stdout) == {
        "usable": False,
        "rows": [{"name": "disk", "state": "fail", "detail": "0.1 GB free", "todo": "free some space"}],
    }


def test_a_look_that_fails_is_a_row_and_the_others_go_on(configuration: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def _stack(_: Config) -> Iterator[Row]:
        raise ImportError("No module named 'zenml'")

    def _weights(_: Config) -> Iterator[Row]:
        raise ConfigError("model.weights: there is no 'x.safetensors'.")

    monkeypatch.setattr(module, "LOOKS", (_stack, _weights, module._python))
    result = CliRunner().invoke(doctor, ["--config", configuration, "--json"], catch_exceptions=False)
    rows = json.loads(result.stdout)["rows"]
    assert [(row["name"], row["state"]) for row in rows] == [("stack", "fail"), ("weights", "fail"), ("python", "ok")]
    assert "No module named 'zenml'" in rows[0]["detail"]


def test_the_packages_installed_are_those_that_pyproject_names() -> None:
    [row] = module._packages(Config())
    assert row.state == "ok", row


def test_a_package_that_is_absent_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = '[project]\ndependencies = ["no-such-imago-package>=1", "click<1"]\n'
    (tmp_path / "pyproject.toml").write_text(text, encoding="utf-8")
    monkeypatch.setattr("imago.home.ROOT", tmp_path)
    absent, old = module._packages(Config())
    assert (absent.name, absent.state) == ("package no-such-imago-package", "fail")
    assert absent.todo == "pip install 'no-such-imago-package>=1'"
    assert old.detail.endswith("is not <1")


def test_the_folders_looked_at_are_the_configured_ones(configuration: str, tmp_path: Path) -> None:
    assert configuration
    assert [(row.state, row.detail) for row in module._folders(Config())] == [
        ("ok", str(tmp_path / "home")),
        ("ok", str(tmp_path / "reports")),
    ]


def test_a_port_held_by_another_program_is_a_warning(configuration: str) -> None:
    assert configuration
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        [row] = module._endpoint(Config(deploy=DeployConfig(port=port)))
    assert row.state == "warn"
    assert f"{port} is held by" in row.detail
    assert "deploy.port" in row.todo


def test_a_full_disk_fails(configuration: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert configuration
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 200_000_000}))
    disk = next(iter(module._space(Config())))
    assert (disk.name, disk.state) == ("disk", "fail")
    assert "0.2 GB free" in disk.detail


def test_weights_that_are_not_there_and_no_hub_are_a_warning_with_the_ways_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from huggingface_hub import constants

    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", address)
    [row] = module._weights(Config())
    assert row.state == "warn"
    assert "cannot be had" in row.detail
    assert "set model.weights to a checkpoint's file or folder, or to `none`" in row.detail


def test_an_unknown_configuration_key_is_refused(configuration: str) -> None:
    result = CliRunner().invoke(doctor, ["--config", configuration, "--set", "deploy.prot=1"])
    assert isinstance(result.exception, ConfigError)
    assert "deploy.port" in str(result.exception)
