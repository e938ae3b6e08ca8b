"""Runs a side of a comparison in a process of its own."""

import multiprocessing
import resource
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Literal

import click

from benchmarks import Figure
from imago.evaluation.memory import kibibytes


@dataclass(frozen=True)
class Run:
    """What a side found, and what it took in a process of its own."""

    result: float
    cpu: float  # seconds, its children's too
    peak: float  # MB of resident memory, its own


def apart(side: Callable[..., float], *arguments: object) -> Run:
    """Run one side in a fresh process, so that neither finds the other's memory or threads."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        run = pool.submit(_measured, side, *arguments).result()
    what = " ".join([side.__name__.strip("_"), *(str(number) for number in arguments if isinstance(number, int))])
    click.echo(f"{what}: {run.result:.4g} in {run.cpu:.0f} CPU seconds, {run.peak:.0f} MB", err=True)
    return run


def _measured(side: Callable[..., float], *arguments: object) -> Run:
    result = side(*arguments)
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(one.ru_utime + one.ru_stime for one in usage)
    return Run(result, cpu, kibibytes("VmHWM") / 1024)  # ru_maxrss begins at what the parent has had


def beside(name: str, ours: float, theirs: float, unit: str, better: Literal["higher", "lower"] = "lower") -> Figure:
    """Return two results side by side."""
    return Figure(name, round(ours / theirs, 4), better, round(ours, 4), round(theirs, 4), unit)
