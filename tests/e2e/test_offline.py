"""With the network cut, from drawing the pictures to an answer of the endpoint, nothing is missing."""

import subprocess
import sys

import pytest

from tests.workspace import TINY, Workspace

pytestmark = pytest.mark.slow

LOOPBACK_UP = """
import fcntl, os, socket, struct, sys
with socket.socket() as lo:
    fcntl.ioctl(lo, 0x8914, struct.pack("16sh22x", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP
os.execv(sys.argv[1], sys.argv[1:])
"""
CUT = ("unshare", "--user", "--map-root-user", "--net", sys.executable, "-c", LOOPBACK_UP)


def test_the_loop_turns_with_the_network_cut(workspace: Workspace) -> None:
    if subprocess.run([*CUT, sys.executable, "-c", ""], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets no user make a network of their own")
    outcome = workspace.run(
        *("--pipeline", "training", "--config", "demo", "--json", "--set", f"deploy.port={workspace.port}"),
        *(*TINY, "--set", "training.epochs=1", "--set", "data.image_size=48", "--set", "evaluation.robustness=false"),
        *("--set", "gate.min_accuracy=0", "--set", "gate.max_calibration_error=1"),
        before=CUT,
    )
    assert outcome.code == 0, outcome.stderr
    assert outcome.json["promoted"] is True
    assert outcome.json["endpoint"] == f"http://127.0.0.1:{workspace.port}"
    assert 0 < outcome.json["example"]["probability"] <= 1
