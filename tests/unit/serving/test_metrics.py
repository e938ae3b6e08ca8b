"""Workers of one server count in one place, apart from any other's."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from imago.home import ROOT
from imago.serving.metrics import share_between_workers

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


@pytest.fixture(autouse=True)
def another_servers_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "everybodys"))


def test_the_folder_is_the_servers_own(tmp_path: Path) -> None:
    share_between_workers(tmp_path / "metrics")
    ours = tmp_path / "metrics" / str(os.getppid())
    (ours / "counter_1.db").write_bytes(b"")
    share_between_workers(tmp_path / "metrics")
    assert os.environ[VARIABLE] == str(ours)
    assert (ours / "counter_1.db").exists()


def test_what_a_server_left_that_is_gone_is_cleared(tmp_path: Path) -> None:
    gone, alive, orphaned = tmp_path / "999999999", tmp_path / str(os.getpid()), tmp_path / "999999998"
    for folder, writer in ((gone, 999999997), (alive, 999999997), (orphaned, os.getpid())):
        folder.mkdir()
        (folder / f"counter_{writer}.db").write_bytes(b"")
    share_between_workers(tmp_path)
    assert (gone.exists(), alive.exists(), orphaned.exists()) == (False, True, True)


def test_what_another_server_left_that_had_the_same_number_is_cleared(tmp_path: Path) -> None:
    ours = tmp_path / str(os.getppid())
    ours.mkdir()
    (ours / "rates").write_bytes(b"of long ago")
    os.utime(ours, (1e9, 1e9))
    share_between_workers(tmp_path)
    assert os.environ[VARIABLE] == str(ours)
    assert not (ours / "rates").exists()


def test_where_no_folder_can_be_made_each_worker_counts_for_itself(tmp_path: Path) -> None:
    (tmp_path / "metrics").write_text("a file")
    share_between_workers(tmp_path / "metrics")
    assert VARIABLE not in os.environ


ASK = """
import os, sys
from pathlib import Path
from imago.serving.metrics import Metrics

folder = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])
folder.mkdir()
metrics = Metrics()
metrics.queue("predict").inc(3)
metrics.tell_model(name="moths", version="7", architecture="tiny", fingerprint="f")
child = os.fork()
if child == 0:
    metrics.queue("predict").inc(2)
    os._exit(0)  # as if killed: what it had under way is over
os.waitpid(child, 0)
assert (folder / f"gauge_livesum_{child}.db").exists()
print(metrics.render()[0].decode())
"""


def test_requests_of_a_worker_that_was_killed_are_no_longer_under_way() -> None:
    done = subprocess.run([sys.executable, "-c", ASK], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert 'imago_queue_length{queue="predict"} 3.0' in done.stdout
    assert 'imago_model_info{architecture="tiny",fingerprint="f",name="moths",version="7"} 1.0' in done.stdout
