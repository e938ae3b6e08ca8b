"""The example configuration of nginx, with nginx itself: TLS outside, the client's own address inside."""

import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from imago.serving.runtime import Runtime
from imago.serving.settings import ServingSettings
from tests.endpoints import listening
from tests.packages import make_package, picture_bytes
from tests.waiting import until
from tests.workspace import ROOT, free_port

EXAMPLE = ROOT / "docs" / "how-to" / "nginx.conf"
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/bin")
OPENSSL = shutil.which("openssl")
BODY_SECONDS = 1  # in place of the example's 10

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(NGINX is None or OPENSSL is None, reason="nginx or openssl is not installed"),
]

MAIN = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/imago.conf;
}}
"""


@dataclass
class Proxy:
    plain: str
    safe: str
    certificate: Path

    def client(self, address: str = "127.0.0.2") -> httpx.Client:
        """A client at an address of this machine, which trusts the certificate that the test has made."""
        verify = ssl.create_default_context(cafile=self.certificate)
        transport = httpx.HTTPTransport(verify=verify, local_address=address)
        return httpx.Client(base_url=self.safe, transport=transport, timeout=60, trust_env=False)


@contextmanager
def proxy(endpoint: str, folder: Path) -> Iterator[Proxy]:
    folder.mkdir()
    certificate, key = folder / "moths.pem", folder / "moths.key"
    names = ["-subj", "/CN=moths.example", "-addext", "subjectAltName=DNS:moths.example,IP:127.0.0.1"]
    made = [str(OPENSSL), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names]
    subprocess.run([*made, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    plain, safe = free_port(), free_port()
    text = EXAMPLE.read_text(encoding="utf-8")
    for here, there in {
        "server 127.0.0.1:3000;": f"server {endpoint.removeprefix('http://')};",
        "listen 80;": f"listen 127.0.0.1:{plain};",
        "listen 443 ssl;": f"listen 127.0.0.1:{safe} ssl;",
        "/etc/ssl/moths.example.pem": str(certificate),
        "/etc/ssl/moths.example.key": str(key),
        "client_body_timeout 10s;": f"client_body_timeout {BODY_SECONDS}s;",
    }.items():
        assert text.count(here) == 1, here
        text = text.replace(here, there)
    (folder / "imago.conf").write_text(text, encoding="utf-8")
    (folder / "nginx.conf").write_text(MAIN.format(folder=folder), encoding="utf-8")
    log = folder / "error.log"
    process = subprocess.Popen([str(NGINX), "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(log)])
    found = Proxy(f"http://127.0.0.1:{plain}", f"https://127.0.0.1:{safe}", certificate)
    try:

        def is_up() -> bool:
            assert process.poll() is None, log.read_text()
            try:
                return httpx.get(found.plain, trust_env=False).status_code == 301
            except httpx.ConnectError:
                return False

        until(is_up, 20, "nginx has not started")
        yield found
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    return Runtime(make_package(tmp_path_factory.mktemp("package") / "colours"))


@pytest.fixture(scope="module")
def behind(runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with (
        listening(runtime, ServingSettings(trusted_proxies=("127.0.0.1",))) as endpoint,
        proxy(endpoint, tmp_path_factory.mktemp("nginx") / "running") as found,
    ):
        yield found


def test_a_picture_is_answered_over_tls(behind: Proxy) -> None:
    with behind.client() as client:
        answer = client.post("/predict", files={"image": picture_bytes("red")})
    assert answer.status_code == 200
    assert answer.json()["predictions"][0]["label"] == "red"
    assert answer.headers["strict-transport-security"] == "max-age=31536000"
    assert answer.headers.get_list("x-content-type-options") == ["nosniff"]


def test_without_tls_a_client_is_sent_to_where_there_is(behind: Proxy) -> None:
    answer = httpx.get(f"{behind.plain}/info?x=1", headers={"Host": "moths.example"}, trust_env=False)
    assert (answer.status_code, answer.headers["location"]) == (301, "https://moths.example/info?x=1")


@pytest.mark.parametrize(
    ("path", "size", "status", "code"),
    [
        ("/predict", 9_900_000, 415, "not_a_picture"),
        ("/predict", 10_000_001, 413, "too_many_bytes"),
        ("/predict_batch", 41_000_000, 413, "too_many_bytes"),  # the endpoint says it
        ("/predict_batch", 43_000_000, 413, "too_many_bytes"),  # nginx says it
    ],
)
def test_what_is_too_large_is_told_alike_whoever_tells_it(
    behind: Proxy, path: str, size: int, status: int, code: str
) -> None:
    with behind.client() as client:
        answer = client.post(path, files={"image" if path == "/predict" else "images": b"x" * size})
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert set(answer.json()["error"]) == {"code", "message", "request_id"}


def test_headers_that_are_too_large_are_told_in_the_same_shape(behind: Proxy) -> None:
    with behind.client() as client:
        answer = client.get("/info", headers={"X-A": "x" * 40_000})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "malformed")
    assert answer.headers["content-type"] == "application/json"


def test_a_client_that_stops_in_its_body_is_cut_off(behind: Proxy) -> None:
    context = ssl.create_default_context(cafile=behind.certificate)
    port = int(behind.safe.rpartition(":")[2])
    with (
        socket.create_connection(("127.0.0.1", port), timeout=20 * BODY_SECONDS) as plain,
        context.wrap_socket(plain, server_hostname="moths.example") as wire,
    ):
        wire.sendall(b"POST /predict HTTP/1.1\r\nHost: moths.example\r\nContent-Length: 100\r\n\r\n--b\r\n")
        said = b"".join(iter(lambda: wire.recv(4096), b""))
    assert said[:12] in {b"HTTP/1.1 408", b""}


def test_each_client_has_its_own_rate_and_cannot_take_anothers(runtime: Runtime, tmp_path: Path) -> None:
    settings = ServingSettings(trusted_proxies=("127.0.0.1",), rate_limit=0.001)
    with listening(runtime, settings) as endpoint, proxy(endpoint, tmp_path / "nginx") as found:

        def ask(address: str, **headers: str) -> int:
            with found.client(address) as client:
                return client.get("/info", headers=headers).status_code

        assert [ask("127.0.0.2"), ask("127.0.0.2"), ask("127.0.0.3")] == [200, 429, 200]
        forged = {"X-Forwarded-For": "192.0.2.1", "X-Real-IP": "192.0.2.1", "Forwarded": "for=192.0.2.1"}
        assert ask("127.0.0.2", **forged) == 429


def test_where_the_endpoint_is_gone_it_is_said_in_the_same_shape(tmp_path: Path) -> None:
    with proxy(f"http://127.0.0.1:{free_port()}", tmp_path / "nginx") as found, found.client() as client:
        answer = client.post("/predict", files={"image": picture_bytes("red")})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not_ready")
    assert answer.headers["retry-after"] == "2"


def test_the_example_lets_through_what_the_endpoint_takes() -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    (size,) = re.findall(r"client_max_body_size (\d+)m;", text)
    settings = ServingSettings()
    assert int(size) << 20 >= settings.max_batch_bytes
    (wait,) = re.findall(r"proxy_read_timeout (\d+)s;", text)
    assert int(wait) > settings.upload_seconds + settings.queue_seconds
