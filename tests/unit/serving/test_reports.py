"""The reports of the model that is served are shown where the deployer wants it, and nothing beside them."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from imago.config import DeployConfig
from imago.serving import deployment, shelf
from imago.serving.deployment import State
from imago.serving.reports import REPORTS
from imago.serving.runtime import Runtime
from imago.serving.settings import ServingSettings
from imago.serving.trial import environment
from tests.endpoints import application
from tests.packages import make_package

WRITTEN = {"data.html": "<p>data</p>", "evaluation.html": "<p>evaluation</p>", "MODEL_CARD.md": "# <moths>"}


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    return Runtime(make_package(tmp_path_factory.mktemp("package") / "colours"))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IMAGO_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def endpoint(runtime: Runtime) -> Iterator[TestClient]:
    with application(runtime, ServingSettings(shelf=shelf.of("moths", "7"))) as opened:
        yield TestClient(opened)


def test_they_are_off_unless_asked_for(runtime: Runtime) -> None:
    assert DeployConfig().reports is False
    with application(runtime, ServingSettings()) as opened:
        answers = [TestClient(opened).get(path) for path in ("/reports", *(f"/reports/{file}" for file in REPORTS))]
    assert [answer.status_code for answer in answers] == [404] * 5
    assert {answer.json()["error"]["code"] for answer in answers} == {"no_reports"}


def test_a_deployment_tells_its_endpoint_where_they_are() -> None:
    assert environment("moths:7-0123abcd", DeployConfig(reports=True))["IMAGO_SHELF"] == str(shelf.of("moths", "7"))
    without = environment("moths:7-0123abcd", DeployConfig())
    assert ServingSettings.from_environment(without).shelf is None


def test_what_there_is_is_listed_and_shown_as_it_was_written(endpoint: TestClient) -> None:
    shelf.fill("moths", "7", WRITTEN)
    listed = endpoint.get("/reports")
    assert listed.headers["content-type"].startswith("text/html")
    for file in WRITTEN:
        assert f'href="reports/{file}"' in listed.text
        assert endpoint.get(f"/reports/{file}").text == WRITTEN[file]
    assert "Drift: there is none yet" in listed.text
    missing = endpoint.get("/reports/drift.html")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "no_report")
    assert endpoint.get("/reports/MODEL_CARD.md").headers["content-type"].startswith("text/plain")


def test_a_later_drift_is_put_beside_the_others_of_a_version_that_shows_them(endpoint: TestClient) -> None:
    shelf.renew("moths", "7", "drift.html", "<p>drift</p>")
    assert endpoint.get("/reports/drift.html").status_code == 404
    shelf.fill("moths", "7", WRITTEN)
    shelf.renew("Moths", "7", "drift.html", "<p>drift</p>")
    assert endpoint.get("/reports/drift.html").text == "<p>drift</p>"
    assert 'href="reports/drift.html"' in endpoint.get("/reports").text


def test_a_report_is_in_a_sandbox_that_asks_nobody(endpoint: TestClient) -> None:
    shelf.fill("moths", "7", WRITTEN | {"drift.html": ""})
    policies = {file: endpoint.get(f"/reports/{file}").headers["content-security-policy"] for file in REPORTS}
    for policy in policies.values():
        assert policy.startswith("sandbox")
        assert "default-src 'none'" in policy
        assert "connect-src" not in policy
        assert "allow-same-origin" not in policy
    assert [file for file, policy in policies.items() if "script" in policy] == ["drift.html"]
    assert "unsafe" not in endpoint.get("/reports").headers["content-security-policy"]


@pytest.mark.parametrize(
    "name",
    ["spec.json", "history.json", "..%2fapp.py", "%2e%2e%2f7%2fdata.html", "data.html/", "data.html%00", "DATA.HTML"],
)
def test_no_other_name_is_a_report(endpoint: TestClient, name: str) -> None:
    shelf.fill("moths", "7", WRITTEN)
    (shelf.of("moths", "7") / "spec.json").write_text("secret")
    answer = endpoint.get(f"/reports/{name}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


def test_who_needs_a_key_needs_it_here_too(runtime: Runtime) -> None:
    shelf.fill("moths", "7", WRITTEN)
    with application(runtime, ServingSettings(shelf=shelf.of("moths", "7"), api_key="k3y")) as opened:
        endpoint = TestClient(opened)
        assert [endpoint.get(path).status_code for path in ("/reports", "/reports/data.html")] == [401, 401]
        assert endpoint.get("/reports/data.html", headers={"X-API-Key": "k3y"}).status_code == 200


def test_the_history_is_that_of_the_deployment_at_this_moment(endpoint: TestClient) -> None:
    shelf.fill("moths", "7", WRITTEN)
    assert "Nothing is known of them" in endpoint.get("/reports").text
    state = (
        State()
        .with_event("deployed", "moths:6-0a", reason="first <of> its name", by="run <3> of training")
        .with_event("failed", "moths:7-0a", "see /home/me/log")
        .with_event("deployed", "moths:7-0a", "in place of <moths:6-0a>")
    )
    state = state.with_event("shadow failed", "moths:8-0a", "see /home/me/another")
    deployment.write(
        "moths",
        state.with_event("recovered", "moths:7-0a", "its server process 4711 was killed").with_event(
            "shadow ended", "moths:8-0a", "its server process 4711 was killed"
        ),
    )
    text = endpoint.get("/reports").text
    told = [
        "<b>deployed</b> moths:7-0a in place of &lt;moths:6-0a&gt;",
        "<b>failed</b> moths:7-0a",
        "<b>deployed</b> moths:6-0a",
    ]
    assert [text.index(event) for event in told] == sorted(text.index(event) for event in told)
    assert "first &lt;of&gt; its name" in text
    assert "UTC by run &lt;3&gt; of training<" in text
    assert "<b>recovered</b> moths:7-0a" in text
    assert "/home/me" not in text
    assert "4711" not in text


@pytest.mark.parametrize("content", ["", "[]", "{", json.dumps({"history": 3}), json.dumps({"history": [1, {}]})])
def test_a_history_that_cannot_be_read_costs_nothing_else(endpoint: TestClient, content: str) -> None:
    shelf.fill("moths", "7", WRITTEN)
    (deployment.folder() / "moths.json").write_text(content)
    answer = endpoint.get("/reports")
    assert answer.status_code == 200
    assert "evaluation.html" in answer.text


def test_of_old_versions_none_are_kept_but_what_serves_and_what_it_took_the_place_of(home: Path) -> None:
    served = {"config": DeployConfig(), "since": deployment.now()}
    current, previous = (deployment.Version(tag=f"moths:{number}-0a", **served) for number in (2, 1))
    deployment.write("moths", State(current=current, previous=previous))
    for number in range(1, 10):
        shelf.fill("moths", str(number), WRITTEN)
        os.utime(shelf.of("moths", str(number)), (number, number))
    shelf.fill("owls", "1", WRITTEN)
    assert {path.name for path in (home / "shelves" / "moths").iterdir()} == {"1", "2", "5", "6", "7", "8", "9"}
    shelf.fill("moths", "3", WRITTEN)  # rolled back to
    assert shelf.of("moths", "3").is_dir()
    assert shelf.of("owls", "1").is_dir()
