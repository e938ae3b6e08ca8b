"""The real service: a Bento built, served by its exact tag in processes of its own, and asked over HTTP."""

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest
import yaml
from PIL import Image

from imago.config import DeployConfig
from imago.monitoring.prediction_store import PredictionStore
from imago.monitoring.shadow_comparison import compare_shadow
from imago.serving import deployment, key_file, processes
from imago.serving.bento import code_digest
from imago.serving.client import Client
from imago.serving.package import ModelPackage
from imago.serving.rollout import Deployment
from imago.serving.runtime import Prediction, Runtime
from tests.bentos import build
from tests.packages import CLASSES, make_package, picture_bytes
from tests.unit.serving.malformed import BAD, GOOD
from tests.waiting import until
from tests.wire import Wire
from tests.workspace import free_port

pytestmark = pytest.mark.slow

TAG = f"moths:3-{code_digest()[:8]}"


@dataclass
class Served:
    url: str
    package: ModelPackage
    store: PredictionStore
    pid: int
    log: Path


@contextmanager
def serve(home: Path, tag: str, folder: Path, **environment: str) -> Iterator[tuple[str, int, Path]]:
    port, log = free_port(), folder / "serve.log"
    command = [sys.executable, "-m", "bentoml", "serve", tag, "--host", "127.0.0.1", "--port", str(port)]
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command, cwd=folder, stdout=sink, stderr=subprocess.STDOUT, start_new_session=True,
            env={**os.environ, "BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "True", **environment},
        )  # fmt: skip
    try:
        url = f"http://127.0.0.1:{port}"
        with Client(url, timeout=5) as client:

            def is_up() -> bool:
                assert process.poll() is None, log.read_text()
                return client.ready()

            until(is_up, 60, log.read_text)
        yield url, process.pid, log
    finally:
        tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        process.send_signal(signal.SIGTERM)
        _, left = psutil.wait_procs(tree, timeout=20)
        for one in left:
            one.kill()
        process.wait()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    home, store = folder / "bentoml", PredictionStore(folder / "predictions.sqlite")
    package = make_package(folder / "package", maps=True)
    built = build(home, package, "moths", "3")
    assert built.stdout.strip() == TAG, built.stderr
    environment = {"IMAGO_PREDICTIONS": str(store.path), "IMAGO_WORKERS": "2", "IMAGO_TOP_K": "2"}
    with serve(home, TAG, folder, **environment) as (url, pid, log):
        yield Served(url, package, store, pid, log)


@pytest.fixture
def client(served: Served) -> Iterator[Client]:
    with Client(served.url) as client:
        yield client


def test_the_endpoint_answers_as_the_package_does_offline(served: Served, client: Client) -> None:
    offline = Runtime(served.package)
    for label in CLASSES:
        picture = picture_bytes(label, kind="JPEG")
        (expected,) = offline.predict([picture], top_k=2)
        assert isinstance(expected, Prediction)
        answer = client.predict(picture)
        assert (answer.model.name, answer.model.version) == ("moths", "3")
        assert [(one.label, one.probability) for one in answer.predictions] == list(expected.top)


def test_the_bento_pins_its_model_exactly_and_names_no_registry(served: Served) -> None:
    bento = served.package.path.parent / "bentoml" / "bentos" / "moths" / TAG.partition(":")[2]
    described = yaml.safe_load((bento / "bento.yaml").read_text())
    assert [model["tag"] for model in described["models"]] == ["moths:3"]
    requirements = described["image"]["python_requirements"]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+]+", line) for line in requirements.split())
    assert "torch" not in requirements
    assert (bento / "src" / "imago" / "serving" / "page" / "index.html").is_file()
    assert not (bento / "src" / "imago" / "training").exists()


def test_the_workers_load_nothing_heavy(served: Served) -> None:
    workers = psutil.Process(served.pid).children(recursive=True)
    mapped = {Path(region.path).name for worker in workers for region in worker.memory_maps()}
    assert any(name.startswith("onnxruntime") for name in mapped)
    assert not [name for name in mapped if name.startswith(("libtorch", "libarrow", "_multiarray_tests"))]


@pytest.mark.parametrize("kind", GOOD)
def test_every_kind_of_picture_is_answered(client: Client, kind: str) -> None:
    assert client.predict(GOOD[kind]()).label in CLASSES


@pytest.mark.parametrize("kind", BAD)
def test_every_broken_picture_is_refused_with_its_code(served: Served, kind: str) -> None:
    make, status, code = BAD[kind]
    response = httpx.post(f"{served.url}/predict", files={"image": ("moth.jpg", make(), "image/jpeg")})
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)


@pytest.mark.parametrize("size", [10_000_001, 11_000_000, 60_000_000])
def test_a_huge_upload_is_refused_and_the_client_hears_it(served: Served, size: int) -> None:
    response = httpx.post(f"{served.url}/predict", files={"image": b"\xff" * size}, timeout=30)
    assert (response.status_code, response.json()["error"]["code"]) == (413, "too_many_bytes")


def test_a_huge_upload_of_unknown_length_is_refused(served: Served) -> None:
    def body() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="image"\r\n\r\n'
        for _ in range(40):
            yield b"\xff" * 1_000_000

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    response = httpx.post(f"{served.url}/predict", content=body(), headers=headers, timeout=30)
    assert response.status_code == 413


def test_malformed_requests_are_refused(served: Served) -> None:
    url = f"{served.url}/predict"
    picture = picture_bytes("red")
    answers = [
        httpx.post(url),
        httpx.post(url, files={"picture": picture}),
        httpx.post(url, json={"image": "x"}),
        httpx.post(url, content=picture, headers={"Content-Type": "image/png"}),
        httpx.get(url),
        httpx.get(f"{served.url}/nothing"),
        httpx.post(f"{served.url}/feedback", content=b"{", headers={"Content-Type": "application/json"}),
    ]
    assert [answer.status_code for answer in answers] == [400, 400, 415, 415, 405, 404, 400]
    assert all(set(answer.json()["error"]) == {"code", "message", "request_id"} for answer in answers)


def test_nonsense_on_the_wire_does_not_end_a_worker(served: Served, client: Client) -> None:
    host, port = "127.0.0.1", int(served.url.rpartition(":")[2])
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    nonsense = [
        b"\x16\x03\x01\x02\x00",
        b"GET\r\n\r\n",
        head + b"Content-Length: -5\r\n\r\n",
        head + b"Content-Length: 500\r\n\r\n--b\r\n",
        head + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    ]
    for line in nonsense:
        with socket.create_connection((host, port), timeout=5) as connection:
            connection.sendall(line)
    assert client.predict(picture_bytes("blue")).label == "blue"
    assert "Traceback" not in served.log.read_text()


def test_heads_and_connections_are_bounded_under_bentoml_serve_as_well(served: Served, tmp_path: Path) -> None:
    with serve(served.package.path.parent / "bentoml", TAG, tmp_path, IMAGO_MAX_CONNECTIONS="20") as (url, _, _):
        endless = Wire(url)
        endless.send(b"GET /info HTTP/1.1\r\nX-Long: ")
        assert endless.flood(b"x" * 16384, most=10**9) < 20_000_000
        assert endless.everything()[:12] in {b"HTTP/1.1 400", b""}
        upgrade = b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        websocket = Wire(url)
        websocket.send(b"GET /predict HTTP/1.1\r\nHost: moths\r\nConnection: Upgrade\r\n" + upgrade + b"\r\n")
        assert websocket.said(b"}}").startswith(b"HTTP/1.1 405 ")
        idle = [Wire(url) for _ in range(50)]
        with Client(url) as client:
            assert client.predict(picture_bytes("red")).label == "red"
            text = httpx.get(f"{url}/metrics").text
        assert all(wire.is_closed() for wire in idle[:30])
        assert any(wire.is_open() for wire in idle[30:])
        for wire in (endless, websocket, *idle):
            wire.socket.close()
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("imago_connections"))
    assert 1 <= float(values["imago_connections"]) <= 21
    assert float(values['imago_connections_over_limit_total{outcome="idle_closed"}']) >= 30


def test_what_the_bento_says_of_its_model_is_told(served: Served, client: Client) -> None:
    tested = client.info().tested
    assert tested is not None
    assert tested.model_dump() == {"accuracy": 0.9, "low": 0.8, "high": 0.95, "pictures": 50}
    assert httpx.get(f"{served.url}/card").text == "# moths\n\n## Test\n"


def test_feedback_finds_its_prediction_whichever_worker_answered(served: Served) -> None:
    for index in range(12):
        with Client(served.url) as one, Client(served.url) as other:
            answer = one.predict(picture_bytes("green", seed=index))
            other.feedback(answer.prediction_id, "red")
    rows = served.store.window(version="3").to_pylist()
    assert sum(row["feedback"] == "red" for row in rows) == 12


def test_an_explanation_is_a_picture(client: Client) -> None:
    image = Image.open(io.BytesIO(client.explain(picture_bytes("red", size=(90, 60)))))
    assert (image.format, image.size) == ("PNG", (90, 60))
    assert client.info().heat_map == "class_activation"


def test_many_at_once_are_answered_or_told_to_wait(served: Served) -> None:
    pictures = [picture_bytes(CLASSES[index % 3], seed=index) for index in range(120)]

    def ask(picture: bytes) -> httpx.Response:
        return httpx.post(f"{served.url}/predict", files={"image": picture}, timeout=30)

    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(ask, pictures))
    assert {answer.status_code for answer in answers} <= {200, 503}
    assert sum(answer.status_code == 200 for answer in answers) > 60
    for index, answer in enumerate(answers):
        if answer.status_code == 200:
            assert answer.json()["predictions"][0]["label"] == CLASSES[index % 3]


def test_metrics_are_of_all_workers(served: Served) -> None:
    def total() -> float:
        lines = httpx.get(f"{served.url}/metrics").text.splitlines()
        (line,) = [line for line in lines if line.startswith('imago_requests_total{route="/info",status="200"}')]
        return float(line.rpartition(" ")[2])

    httpx.post(f"{served.url}/predict", files={"image": picture_bytes("red")})
    text = httpx.get(f"{served.url}/metrics").text
    assert len([line for line in text.splitlines() if line.startswith("imago_model_info")]) == 1
    assert 'imago_stage_seconds_count{stage="forward"}' in text
    assert 'imago_queue_length{queue="predict"} 0.0' in text
    httpx.get(f"{served.url}/info")
    before = total()
    for _ in range(20):
        httpx.get(f"{served.url}/info")
    assert total() == before + 20


def test_probes_and_pages_are_there(served: Served) -> None:
    for path in ("/livez", "/readyz", "/ui", "/ui/page.js", "/ui/page.css", "/docs.json", "/info", "/metrics"):
        answer = httpx.get(served.url + path, headers={"X-Request-ID": "mine"})
        assert answer.status_code == 200, path
        for name, value in {"x-request-id": "mine", "x-content-type-options": "nosniff", "x-frame-options": "DENY",
                            "referrer-policy": "no-referrer"}.items():  # fmt: skip
            assert answer.headers.get_list(name) == [value], path
        assert "access-control-allow-origin" not in answer.headers


def test_a_built_version_is_never_replaced_by_another_model(served: Served) -> None:
    folder = served.package.path.parent
    same = build(folder / "bentoml", served.package, "moths", "3")
    assert (same.returncode, same.stdout.strip()) == (0, TAG)
    other = build(folder / "bentoml", make_package(folder / "other", confused=True), "moths", "3")
    assert other.returncode != 0
    assert "a version is never replaced; take a new one" in other.stderr


def test_a_key_and_limits_come_from_the_environment(served: Served, tmp_path: Path) -> None:
    home = served.package.path.parent / "bentoml"
    environment = {"IMAGO_API_KEY": "open sesame", "IMAGO_MAX_PIXELS": "4000", "IMAGO_MODEL_VERSION": "2026-03"}
    with serve(home, TAG, tmp_path, **environment) as (url, _, _):
        assert httpx.post(f"{url}/predict", files={"image": picture_bytes("red")}).status_code == 401
        with Client(url, key="open sesame") as client:
            assert client.predict(picture_bytes("red")).model.version == "2026-03"
        response = httpx.post(
            f"{url}/predict", files={"image": picture_bytes("red", size=(80, 60))}, headers={"X-API-Key": "open sesame"}
        )
        assert response.status_code == 413
        assert httpx.get(f"{served.url}/metrics").status_code == 200


def test_keys_are_given_out_and_revoked_while_it_serves(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGO_HOME", str(tmp_path / "home"))
    home = served.package.path.parent / "bentoml"
    options = {"IMAGO_KEYS": str(key_file.path()), "IMAGO_WORKERS": "2", "IMAGO_LOG_FORMAT": "json"}
    with serve(home, TAG, tmp_path, **options) as (url, pid, log):
        workers = {worker.pid for worker in psutil.Process(pid).children(recursive=True)}

        def statuses(key: str | None) -> set[int]:
            headers = {"X-API-Key": key} if key else {}
            return {httpx.get(f"{url}/info", headers=headers).status_code for _ in range(8)}  # of either worker

        assert statuses(None) == {200}
        phone, farm = key_file.add("phone")[1], key_file.add("farm")[1]
        until(lambda: statuses(None) == {401}, 10, "the first key noticed")
        assert (statuses(phone), statuses(farm)) == ({200}, {200})
        key_file.revoke("phone")
        until(lambda: statuses(phone) == {401}, 10, "the revoked key noticed")
        assert statuses(farm) == {200}
        assert {worker.pid for worker in psutil.Process(pid).children(recursive=True)} == workers
        httpx.get(f"{url}/info", headers={"X-API-Key": farm, "X-Request-ID": "the-last"})
        lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
        (last,) = [line for line in lines if line["request_id"] == "the-last"]
        assert (last["path"], last["status"], last["client"]) == ("/info", 200, "key farm")


def test_a_deployment_with_keys_lets_its_own_probes_in_and_nobody_else_without_one(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BENTOML_HOME", str(served.package.path.parent / "bentoml"))
    secret = key_file.add("phone")[1]
    lines: list[str] = []
    moths = Deployment("moths", on_progress=lines.append, package=lambda _: served.package)
    origin = {"Origin": "https://moths.example"}
    config = DeployConfig(host="0.0.0.0", port=free_port(), cors_origins=(origin["Origin"],))
    try:
        endpoint = moths.deploy(TAG, config).endpoint
        assert not [line for line in lines if line.startswith("warning")]
        refused = httpx.get(f"{endpoint}/info", headers=origin)
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, origin["Origin"])
        with Client(str(endpoint), key=secret) as client:
            assert client.predict(picture_bytes("red")).label == "red"
    finally:
        moths.stop()


def test_start_brings_back_what_was_killed_whole_and_it_stops_where_its_worker_dies_again_and_again(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BENTOML_HOME", str(served.package.path.parent / "bentoml"))
    moths = Deployment("moths", package=lambda _: served.package)
    config = DeployConfig(port=free_port(), workers=1)
    try:
        before = moths.deploy(TAG, config)
        for pid in reversed(before.pids):  # the worker first, which would start another supervisor
            os.kill(pid, signal.SIGKILL)
        until(lambda: not moths.status().pids, 30, "its worker goes on")
        assert moths.status().reason == f"its server process {before.pids[0]} was killed"
        assert processes.free(config.host, config.port)
        with Client(str(moths.start().endpoint)) as client:
            assert client.predict(picture_bytes("red")).label == "red"
        supervisor = deployment.read("moths").current.process

        def is_stopped() -> bool:
            for worker in processes.tree(supervisor)[1:]:
                with suppress(ProcessLookupError):
                    os.kill(worker, signal.SIGKILL)
            return not processes.alive(supervisor)

        until(is_stopped, 60, "it is respawned still")
        status = moths.status()
        assert (status.running, status.pids) == (False, ())
        assert str(status.reason).endswith("last by SIGKILL")
        assert status.log[-1].endswith(f"giving up: {status.reason}")
        assert processes.free(config.host, config.port)
        assert [entry.outcome for entry in moths.history()] == ["failed", None, "failed", None]
    finally:
        moths.stop()


def test_a_challenger_is_mirrored_unheard_and_whatever_befalls_it_every_client_is_answered(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, store = served.package.path.parent / "bentoml", PredictionStore(tmp_path / "home" / "predictions.sqlite")
    monkeypatch.setenv("IMAGO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BENTOML_HOME", str(home))
    confused = make_package(tmp_path / "confused", confused=True)  # which takes each colour for the next
    built = build(home, confused, "moths", "4")
    challenger = built.stdout.strip()
    assert challenger == TAG.replace(":3", ":4"), built.stderr
    packages = {TAG: served.package, challenger: confused}
    moths = Deployment("moths", package=packages.__getitem__)
    config = DeployConfig(port=free_port(), workers=1)
    try:
        champion = moths.deploy(TAG, config)
        beside = moths.start_shadow(challenger, 1.0).shadow
        assert beside is not None
        with Client(str(champion.endpoint)) as client:

            def ask(count: int) -> None:
                for number in range(count):
                    label = CLASSES[number % len(CLASSES)]
                    answer = client.predict(picture_bytes(label, seed=number))
                    assert (answer.model.version, answer.label) == ("3", label)
                    client.feedback(answer.prediction_id, label)

            def is_mirrored() -> bool:
                ask(1)
                return len(store.mirrored("moths", "3", "4", most=20)) == 20

            until(is_mirrored, 60, "the shadow is not asked")
            found = compare_shadow(store, "moths", "3", "4")
            assert (found.verdict, found.agreeing, found.accuracy, found.shadow_accuracy) == (
                "champion_better",
                0,
                1.0,
                0.0,
            )
            assert found.failures == {}
            assert found.seconds is not None
            assert found.shadow_seconds is not None
            worker = psutil.Process(beside.pids[1])
            worker.suspend()  # the slowest that one can be
            ask(40)
            dropped = [line for line in metrics_of(champion.endpoint) if 'outcome="dropped",version="4"' in line]
            assert dropped, metrics_of(champion.endpoint)
            worker.kill()
            ask(10)
            os.kill(beside.pids[0], signal.SIGKILL)
            ask(10)
        status = moths.status()
        assert (status.running, status.pids) == (True, champion.pids)
        assert status.shadow is not None
        assert not status.shadow.running
    finally:
        moths.stop()
    assert moths.status().shadow is None
    assert processes.free(config.host, config.port)
    left = [process for process in psutil.process_iter() if _is_of(process, tmp_path)]
    assert left == []


def metrics_of(endpoint: str | None) -> list[str]:
    return [line for line in httpx.get(f"{endpoint}/metrics").text.splitlines() if line.startswith("imago_shadow")]


def _is_of(process: psutil.Process, folder: Path) -> bool:
    """Tell whether a process was started by a deployment below this folder, and lives."""
    try:
        mark = process.environ().get("PROMETHEUS_MULTIPROC_DIR", "")
        return mark.startswith(str(folder)) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
