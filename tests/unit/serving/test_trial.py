"""How many workers a version is tried with, and goes on with."""

import os
import subprocess
import sys

import joblib
import pytest

from imago.config import DeployConfig
from imago.home import ROOT
from imago.serving import deployment
from imago.serving.trial import MOST_WORKERS, worker_count

BOUND = """
import os, sys
os.sched_setaffinity(0, {int(sys.argv[1])})
from imago.config import DeployConfig
from imago.serving.trial import worker_count
print(worker_count(DeployConfig()))
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no process to a core")
def test_a_process_that_may_use_one_core_has_one_worker() -> None:
    command = [sys.executable, "-c", BOUND, str(min(os.sched_getaffinity(0)))]
    assert subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout == "1\n"


def test_as_many_workers_as_asked_for_and_on_a_large_machine_not_one_a_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joblib, "cpu_count", lambda: 64)
    assert worker_count(DeployConfig(workers=7)) == 7
    assert worker_count(DeployConfig()) == MOST_WORKERS


def test_what_is_not_said_stays_unsaid_and_starts_nothing_anew(house, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joblib, "cpu_count", lambda: 2)
    pids = house.deploy(1, workers=None).pids
    assert len(pids) == 3
    assert deployment.read("moths").current.config.workers is None
    monkeypatch.setattr(joblib, "cpu_count", lambda: 3)  # another machine of the cluster, or another container
    assert house.deploy(1, workers=None).pids == pids
