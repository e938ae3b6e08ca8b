"""Pictures are answered by an endpoint, or by the model in production; a bad one does not stop the others."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cli.predict import predict
from imago.errors import ConfigError, ImagoError
from imago.serving import examples
from imago.serving.client import EndpointError
from imago.serving.package import ModelPackage
from imago.serving.runtime import Runtime
from imago.serving.settings import ServingSettings
from tests.endpoints import listening
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
    monkeypatch.delenv("IMAGO_API_KEY", raising=False)
    return {path.stem: str(path) for path in tmp_path.iterdir() if path.is_file()}


@contextmanager
def endpoint(statuses: dict[bytes, int] | None = None) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """An endpoint on loopback that speaks the contract: it calls every picture a luna."""
    asked: list[dict[str, str]] = []

    class Endpoint(Handler):
        def do_GET(self) -> None:
            self.answer(200, examples.INFO)

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


def refusal(result: Result) -> tuple[int, str]:
    """Return the exit code and the one line that the command line makes of what went wrong."""
    error = result.exception
    assert isinstance(error, ImagoError), result.output
    assert result.stdout == ""
    assert "\n" not in str(error)
    return error.exit_code, str(error)


def test_the_endpoint_and_the_package_are_shown_alike(
    pictures: dict[str, str], package: ModelPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, package)
    asked = (pictures["red"], pictures["text"], pictures["blue"], "--top-k", "2")
    local, local_json = run(*asked), json.loads(run(*asked, "--json").stdout)
    with listening(Runtime(package), ServingSettings()) as url:
        remote, remote_json = run(*asked, "--url", url), json.loads(run(*asked, "--url", f"{url}/", "--json").stdout)
    assert (local.exit_code, remote.exit_code) == (1, 1)
    assert remote.stdout.splitlines()[-1] == f"by moths version 7, {url}"
    answers = [line for line in local.stdout.splitlines()[:-1] if "text.jpg" not in line]
    assert [line for line in remote.stdout.splitlines()[:-1] if "text.jpg" not in line] == answers
    assert (local_json["endpoint"], remote_json["endpoint"]) == (None, url)
    for here, there in zip(local_json["predictions"], remote_json["predictions"], strict=True):
        assert set(there) - set(here) <= {"prediction_id"}
        assert there["path"] == here["path"]
        if "error" in here:
            assert there["error"]["code"] == here["error"]["code"] == "not_a_picture"
        else:
            assert {key: there[key] for key in here} == here


def test_the_key_is_read_from_a_file_and_goes_before_the_environment_s(
    pictures: dict[str, str], package: ModelPackage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGO_API_KEY", "old-secret")
    (tmp_path / "key").write_text("open-sesame\n")
    with listening(Runtime(package), ServingSettings(api_key="open-sesame")) as url:
        assert run(pictures["red"], "--url", url, "--key-file", str(tmp_path / "key")).exit_code == 0
        code, said = refusal(run(pictures["red"], "--url", url))
        assert (code, said) == (
            1, "The key is not the right one. Here it is read from the file that --key-file names, or else from "
            "IMAGO_API_KEY.",
        )  # fmt: skip
        monkeypatch.delenv("IMAGO_API_KEY")
        code, said = refusal(run("absent.jpg", pictures["text"], "--url", url))
        assert said.startswith("A key is needed")
        assert "--key-file" in said


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"", "must hold one key and nothing else"),
        (b"k" * 5000, "must hold one key and nothing else"),
        (b"secret one\nsecret two\n", "characters that no key has"),
        (b"\xffsecret", "characters that no key has"),
    ],
)
def test_a_file_that_holds_no_key_is_refused(
    pictures: dict[str, str], tmp_path: Path, content: bytes | None, said: str
) -> None:
    if content is not None:
        (tmp_path / "key").write_bytes(content)
    result = run(pictures["red"], "--url", "http://127.0.0.1:9", "--key-file", str(tmp_path / "key"))
    assert isinstance(result.exception, ConfigError)
    code, told = refusal(result)
    assert (code, said in told, "secret" in told) == (2, True, False)


def test_where_nothing_listens_one_line_says_so(pictures: dict[str, str], package: ModelPackage) -> None:
    with listening(Runtime(package), ServingSettings()) as url:
        pass
    code, said = refusal(run(pictures["red"], "--url", url))
    assert code == 1
    assert said.startswith(f"The endpoint {url} cannot be reached: ")
    assert "refused" in said


def test_over_the_rate_one_line_says_when_to_come_back(pictures: dict[str, str], package: ModelPackage) -> None:
    with listening(Runtime(package), ServingSettings(rate_limit=0.01)) as url:
        code, said = refusal(run(*[pictures["red"]] * 3, "--url", url))
    assert code == 1
    assert said.startswith("Too many requests: 0.01 a second are answered. Ask again in ")


def test_an_address_without_a_scheme_is_refused_with_the_whole_one(pictures: dict[str, str]) -> None:
    code, said = refusal(run(pictures["red"], "--url", "127.0.0.1:3000"))
    assert code == 2
    assert said.endswith("it must begin with http:// or https://. Did you mean 'http://127.0.0.1:3000'?")


def test_something_else_that_listens_is_told(pictures: dict[str, str]) -> None:
    class Other(Handler):
        def do_POST(self) -> None:
            self.body()
            self.reply(200, b"<html>", Content_Type="text/html")

    with serving(Other) as url:
        code, said = refusal(run(pictures["red"], "--url", url))
    assert (code, said) == (
        1, f"{url}/predict answered with something else than Imago's endpoint does: is the address right?"
    )  # fmt: skip


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
