"""How much memory an answer takes, asked of a process of its own: `python -m imago.evaluation.memory PACKAGE`."""

import logging
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from imago.home import ROOT
from imago.serving.package import ModelPackage

logger = logging.getLogger(__name__)

_STATUS = Path("/proc/self/status")
_PEAK = Path("/proc/self/clear_refs")  # 5 sets VmHWM back to VmRSS: proc_pid_clear_refs(5)
_ANSWERS = 3
_PATIENCE = 120  # seconds


def answering_memory(package: ModelPackage) -> int | None:
    """Return by how many bytes a fresh process grows that loads the graph and answers one picture at a time.

    Its greatest resident memory, less what it had with everything imported and nothing loaded. One thread, as at the
    endpoint. None where the system does not tell, or the process does not come to an end in time, which is logged.
    """
    if not _STATUS.exists():
        return None
    command = [sys.executable, "-m", __name__, str(package.path.resolve())]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=_PATIENCE, check=True)
    except subprocess.TimeoutExpired:
        reason = f"it took more than {_PATIENCE} s"
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.splitlines() or [f"exit code {error.returncode}"])[-1]
    else:
        return int(done.stdout.split()[-1])
    logger.warning("The memory that %s takes could not be measured: %s", package.onnx, reason)
    return None


def _measure(package: ModelPackage) -> int:
    import numpy as np

    from imago.serving.runtime import Runtime

    size = package.spec.preprocessing.image_size
    picture = np.zeros((1, 3, size, size), dtype=np.float32)
    with suppress(OSError):  # a kernel without it counts the peak of the imports, too
        _PEAK.write_text("5", encoding="ascii")
    before = kibibytes("VmRSS")
    runtime = Runtime(package, threads=1)
    for _ in range(_ANSWERS):
        runtime.predict_array(picture)
    return 1024 * max(0, kibibytes("VmHWM") - before)


def kibibytes(name: str) -> int:
    """Return a size that Linux states of this process, such as VmHWM, the peak of its resident memory: proc(5)."""
    (line,) = (line for line in _STATUS.read_text(encoding="ascii").splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1])


if __name__ == "__main__":
    sys.stdout.write(f"{_measure(ModelPackage(Path(sys.argv[1])))}\n")
