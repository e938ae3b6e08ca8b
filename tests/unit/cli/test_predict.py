"""Pictures are answered by an endpoint, or by the model in production; a bad one does not stop the others."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cli.predict import predict
from imago.serving.client import EndpointError
from imago.serving.package import ModelPackage
from tests.loopback import Handler, serving
from tests.packages import make_package, picture_bytes


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    return make_package(tmp_path_factory.mktemp("packages") / "colours")


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setenv("IMAGO_HOME", str(tmp_path / "home"))
    for name, content in {
        "red.png": picture_bytes("red"),
        "blue.png": picture_bytes("blue"),
        "text.jpg": b"no picture",
    }.items():
        (tmp_path / name).write_bytes(content)
    return {path.stem: str(path) for path in tmp_path.iterdir() if path.is_file()}


@contextmanager
def endpoint(statuses: dict[bytes, int] | None = None) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """An endpoint on loopback that speaks the contract: it calls every picture a luna."""
    asked: list[dict[str, str]] = []

    class Endpoint(Handler):
        def do_GET(self) -> None:
            self.answer(200, {"model": {"name": "moths", "version": "7"}})

        def do_POST(self) -> None:
            body = self.body()
            asked.append({"path": self.path, "key": self.headers.get("X-API-Key", "")})
            status = next((code for part, code in (statuses or {}).items() if part in body), 200)
            if status != 200:
                self.answer(status, {"error": {"code": "not_a_picture", "message": "It is not a picture."}})
                return
            labels = [{"label": "luna", "probability": 0.75}, {"label": "atlas", "probability": 0.25}]
            model = {"name": "moths", "version": "7"}
            self.answer(200, {"prediction_id": "1", "model": model, "predictions": labels,
                              "rejected": False, "reason": None})  # fmt: skip

        def answer(self, status: int, body: dict[str, object]) -> None:
            self.reply(status, json.dumps(body).encode(), Content_Type="application/json")

    with serving(Endpoint) as address:
        yield address, asked


def run(*arguments: str) -> Result:
    return CliRunner().invoke(predict, arguments)


def use(monkeypatch: pytest.MonkeyPatch, package: ModelPackage) -> list[str | None]:
    """Put a package into production; returns the list of names that are asked for."""
    asked: list[str | None] = []

    def production_package(name: str | None) -> tuple[ModelPackage, str]:
        asked.append(name)
        return package, "4"

    monkeypatch.setattr("cli.production.production_package", production_package)
    return asked


def test_without_an_endpoint_the_model_in_production_answers(
    pictures: dict[str, str], package: ModelPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = use(monkeypatch, package)
    result = run(pictures["red"], pictures["blue"], "--json")
    assert result.exit_code == 0, result.output
    outcome = json.loads(result.stdout)
    assert outcome["endpoint"] is None
    assert outcome["model"] == {"name": "moths", "version": "4"}
    assert [answer["path"] for answer in outcome["predictions"]] == [pictures["red"], pictures["blue"]]
    assert [answer["predictions"][0]["label"] for answer in outcome["predictions"]] == ["red", "blue"]
    assert asked == [None]


def test_an_empty_file_is_named(
    pictures: dict[str, str], package: ModelPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, package)
    Path(pictures["text"]).write_bytes(b"")
    result = run(pictures["text"])
    assert result.exit_code == 1
    assert "The file is empty" in result.stdout


def test_top_k_bounds_the_labels_shown(
    pictures: dict[str, str], package: ModelPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, package)
    [answer] = json.loads(run(pictures["red"], "--json", "--top-k", "2").stdout)["predictions"]
    assert len(answer["predictions"]) == 2
    assert answer["predictions"][0]["probability"] >= answer["predictions"][1]["probability"]


def test_a_file_that_is_no_picture_exits_with_1_and_the_others_are_answered(
    pictures: dict[str, str], package: ModelPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, package)
    result = run(pictures["text"], pictures["red"], "--json")
    assert result.exit_code == 1
    bad, good = json.loads(result.stdout)["predictions"]
    assert bad["error"]["code"] == "not_a_picture"
    assert good["predictions"][0]["label"] == "red"


def test_for_people_the_first_label_stands_beside_the_path(
    pictures: dict[str, str], package: ModelPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, package)
    lines = run(pictures["red"], "--model", "moths").stdout.splitlines()
    assert lines[0].startswith(f"{pictures['red']}: red ")
    assert lines[-1] == "by moths version 4, run on this machine"


def test_an_endpoint_given_by_its_address_answers(pictures: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGO_API_KEY", "k3y")
    with endpoint() as (url, asked):
        result = run(pictures["red"], "--url", url, "--top-k", "1", "--json")
    assert result.exit_code == 0, result.output
    outcome = json.loads(result.stdout)
    assert outcome["model"] == {"name": "moths", "version": "7"}
    assert outcome["predictions"][0]["predictions"] == [{"label": "luna", "probability": 0.75}]
    assert asked == [{"path": "/predict", "key": "k3y"}]


def test_a_picture_that_the_endpoint_refuses_does_not_stop_the_others(pictures: dict[str, str]) -> None:
    with endpoint({b"no picture": 415}) as (url, _):
        result = run(pictures["text"], pictures["red"], "--url", url, "--json")
    assert result.exit_code == 1
    bad, good = json.loads(result.stdout)["predictions"]
    assert bad["error"] == {"code": "not_a_picture", "message": "It is not a picture."}
    assert good["predictions"][0]["label"] == "luna"


def test_a_wrong_key_ends_the_command_at_once(pictures: dict[str, str]) -> None:
    with endpoint({b"": 401}) as (url, asked):
        result = run(pictures["red"], pictures["blue"], "--url", url)
    assert isinstance(result.exception, EndpointError)
    assert len(asked) == 1


def test_a_file_that_is_not_there_and_a_folder_do_not_stop_the_others(
    pictures: dict[str, str], package: ModelPackage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, package)
    result = run(str(tmp_path / "absent.jpg"), str(tmp_path), pictures["red"], "--json")
    assert result.exit_code == 1
    absent, folder, red = json.loads(result.stdout)["predictions"]
    assert absent["error"]["message"] == "There is no such file."
    assert "--pipeline inference" in folder["error"]["message"]
    assert red["predictions"][0]["label"] == "red"
