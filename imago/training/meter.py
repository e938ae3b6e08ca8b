"""Measures what a training spends."""

import os
import subprocess
import time

import torch

from imago.config import TrainingConfig
from imago.footprint import Spent
from imago.training.devices import of_all

_PATIENCE = 10  # seconds


class Meter:
    """Counts clock, CPU and GPU seconds from its making on, and what was spent `before` an interruption.

    CPU seconds are those of this process and of the children that have ended, on this machine.
    """

    def __init__(self, training: TrainingConfig) -> None:
        self.before: dict[str, float] = {}
        self._training = training
        self._gpus = training.devices if torch.cuda.device_count() else 0
        self._gpu_watts = gpu_power_limit() if self._gpus else None
        self._process = os.getpid()
        self._clock, self._cpu = time.monotonic(), cpu_seconds()
        self._here = 0.0

    def read(self) -> Spent:
        """Return what has been spent. Processes that train together have to ask for it together."""
        if os.getpid() == self._process:
            cpu = self._here = cpu_seconds() - self._cpu
        else:  # forked to train: each counts from zero, and what was spent before that is known from the last reading
            cpu = self._here + sum(of_all([cpu_seconds()]))
        wall = time.monotonic() - self._clock
        return Spent(
            wall_seconds=self.before.get("wall_seconds", 0.0) + wall,
            cpu_seconds=self.before.get("cpu_seconds", 0.0) + cpu,
            gpu_seconds=self.before.get("gpu_seconds", 0.0) + self._gpus * wall,
            watts_per_core=self._training.watts_per_core,
            gpu_watts=self._gpu_watts,
            grid_intensity=self._training.grid_intensity,
        )


def gpu_power_limit() -> float | None:
    """Return the power limit of the first GPU in watts, as its driver's tool tells it; None where it does not."""
    command = ["nvidia-smi", "--query-gpu=power.limit", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_PATIENCE).stdout
        return float(said.splitlines()[0])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None


def cpu_seconds() -> float:
    """Return what this process and its children that have ended have spent so far, in user and system mode."""
    return sum(os.times()[:4])
