"""Run in a mount namespace of its own: deploy on a small disk, fill it, and print what was answered as JSON.

Its arguments: the folder on the small disk, the home of the Bentos, the package and the tag.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import httpx

from imago.config import DeployConfig
from imago.serving import deployment
from imago.serving.package import ModelPackage
from imago.serving.rollout import Deployment
from tests.packages import picture_bytes
from tests.waiting import until
from tests.workspace import free_port

DISK, BENTOS, PACKAGE, TAG = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), sys.argv[4]
os.environ |= {
    "IMAGO_HOME": str(DISK / "home"),
    "BENTOML_HOME": BENTOS,
    "IMAGO_LOG_FORMAT": "json",
    "IMAGO_RATE_LIMIT": "100000",
}
client = httpx.Client(timeout=20, trust_env=False)


def fill() -> Path:
    """Write until there is no room left, not for a byte."""
    file = DISK / "filler"
    with file.open("ab", buffering=0) as sink:
        for size in (1 << 20, 4096, 1):
            try:
                while True:
                    sink.write(bytes(size))
            except OSError:
                continue
    return file


def ask(url: str, count: int) -> list[int]:
    files = {"image": picture_bytes("red")}
    return [client.post(f"{url}/predict", files=files).status_code for _ in range(count)]


def degraded(url: str) -> list[str]:
    answer = client.get(f"{url}/readyz")
    assert answer.status_code == 200, answer.text
    return [part["part"] for part in answer.json()["degraded"]]


def count(url: str, name: str) -> float:
    lines = client.get(f"{url}/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def main() -> dict[str, Any]:
    (DISK / "metrics").mkdir()
    (Path(BENTOS) / "imago-metrics").symlink_to(DISK / "metrics")
    config = DeployConfig(port=free_port(), workers=1)
    moths = Deployment("moths", package=lambda _: ModelPackage(PACKAGE))
    url = str(moths.deploy(TAG, config).endpoint)
    try:
        facts: dict[str, Any] = {"before": [ask(url, 5), degraded(url)]}
        filler = fill()
        facts["full"] = ask(url, 60)
        until(lambda: "predictions" in degraded(url), 20, "the store is noticed")
        facts["degraded"] = degraded(url)
        facts["lines_lost"] = count(url, "imago_log_lines_lost_total")
        asked = client.post(f"{url}/predict", files={"image": picture_bytes("red")}).json()["prediction_id"]
        feedback = client.post(f"{url}/feedback", json={"prediction_id": asked, "label": "red"})
        facts["feedback"] = [feedback.status_code, feedback.json()["error"]["code"]]

        supervisor, worker = moths.status().pids
        os.kill(worker, signal.SIGKILL)
        until(lambda: moths.status().running and moths.status().pids[1:] not in ((), (worker,)), 60, "a new worker")
        answers = ask(url, 20)
        until(lambda: "predictions" in degraded(url), 20, "the new worker notices")
        facts["after a worker was killed"] = [answers, degraded(url), moths.status().pids[0] == supervisor]

        filler.unlink()
        ask(url, 3)
        until(lambda: not {"predictions", "log"} & set(degraded(url)), 30, lambda: str(degraded(url)))
        log = Path(deployment.read("moths").current.process.folder) / "server.log"
        mark = f"mark-{time.monotonic_ns()}"
        client.get(f"{url}/info", headers={"X-Request-ID": mark})
        until(lambda: mark in log.read_text(), 10, "the log goes on")
        return facts
    finally:
        moths.stop()


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main()) + "\n")
