"""The endpoint beside services written by hand, and a model package beside the same weights in eager torch.

What a request costs is CPU time of the server's whole process tree, for mobilenetv3_small_100 and mobilenetv2_140 with
random weights; the clients are on loopback, and are not counted.
"""

import imago.torchvision_compat  # noqa: F401, I001  (before timm)

import io
import os
import signal
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import click
import numpy as np
import torch
from PIL import Image
from torch import nn

from benchmarks import Figure, compare, pressure, show
from benchmarks.apart import beside
from benchmarks.load import predict_request
from benchmarks.pressure import Pressure
from benchmarks.served import Server, build, changing, deployed, home, loop, rival
from imago.config import SyntheticConfig
from imago.data.dataset import ImageDataset
from imago.data.synthetic import draw_moth, synthetic_dataset
from imago.data.transforms import Preprocessing
from imago.serving.export import export_package
from imago.serving.package import ModelPackage
from imago.serving.runtime import Runtime
from imago.history import EpochResult
from imago.training.classifier import create_classifier, preprocessing_of
from imago.training.trainer import TrainedModel

SPECIES = 8
DIFFERENT = 8  # pictures of a size
BATCHES = (2, 4, 8)  # pictures that go through the graph at once
GRAIN = 12  # which makes files as large as photographs
UNIT = "CPU ms a request"
PRESSURE = Pressure()
PARTS = ("package", "batches", "cost", "memory", "load", "endurance", "changes")


@dataclass(frozen=True)
class Load:
    """What the services are asked, and how often."""

    architectures: tuple[str, ...] = ("mobilenetv3_small_100", "mobilenetv2_140")
    image_size: int = 224
    pictures: tuple[tuple[int, int], ...] = ((224, 224), (1000, 800))  # width and height
    clients: tuple[int, ...] = (1, 8, 32)
    requests: int = 200  # in a measurement
    rounds: int = 3  # of which the median counts
    workers: int = os.cpu_count() or 1


@dataclass(frozen=True)
class Exported:
    """A network with random weights, in torch and as a package."""

    model: nn.Module
    preprocessing: Preprocessing
    package: ModelPackage


def figures(
    load: Load = Load(), rounds: int = 40, only: Sequence[str] = PARTS, how: Pressure = PRESSURE
) -> Iterator[Figure]:
    """Measure of each architecture what `only` names of these parts.

    A package without HTTP in `rounds`, of the first architecture; what batches are worth; what a request costs;
    memory and start; how it bears load; what is lost while versions change.
    """
    moths = SyntheticConfig(species=SPECIES, per_class_train=4, per_class_val=4, per_class_test=4)
    dataset = synthetic_dataset(moths, load.image_size, seed=0)
    with tempfile.TemporaryDirectory() as scratch, home(Path(scratch, "home")):
        for index, architecture in enumerate(load.architectures):
            exported = _export(architecture, dataset, load.image_size, Path(scratch, architecture))
            images = [dataset.image(one) for one in range(max(BATCHES))]
            if index == 0 and "package" in only:
                yield from _without_http(exported, images, rounds)
            if "batches" in only:
                yield from _in_batches(exported.package, images, rounds)
            files = {
                (width, height): _pictures(width, height, Path(scratch, f"{width}x{height}"))
                for width, height in load.pictures
            }
            tag = build(exported.package, architecture)
            if "cost" in only:
                yield from _cost(exported.package, tag, load, files)
            if "memory" in only:
                yield from _memory_and_start(exported.package, tag, load, files[load.pictures[-1]])
            if {"load", "endurance", "changes"} & set(only):
                tags = [tag, build(exported.package, architecture, "2")]
                yield from _under_pressure(exported.package, tags, load, _messages(files[load.pictures[0]]), only, how)


def _cost(package: ModelPackage, tag: str, load: Load, files: dict[tuple[int, int], list[Path]]) -> Iterator[Figure]:
    architecture = package.spec.architecture
    with ExitStack() as stack:
        servers = {
            "ours": stack.enter_context(deployed(tag, package, load.workers)),
            "eager": stack.enter_context(rival("eager", package, load.workers)),
            "onnx": stack.enter_context(rival("onnx", package, load.workers)),
        }
        for (width, height), paths in files.items():
            messages = _messages(paths)
            for server in servers.values():
                server.cpu(messages, clients=max(load.clients), requests=8 * load.workers)  # warm, and not counted
            spent: dict[tuple[str, int], list[float]] = defaultdict(list)
            for _ in range(load.rounds):
                bare = loop(package, paths, load.requests).cpu
                for clients in load.clients:
                    spent["bare", clients].append(bare)
                    for name, server in servers.items():
                        spent[name, clients].append(server.cpu(messages, clients=clients, requests=load.requests))
            size = f"{width}" if width == height else f"{width}x{height}"
            for clients in load.clients:
                ours = median(spent["ours", clients])
                for name in ("eager", "onnx", "bare"):
                    figure = f"serving.cpu_beside_{name}.{architecture}.{size}.{clients}"
                    yield beside(figure, ours, median(spent[name, clients]), UNIT)
        more, theirs = (servers[name].private() for name in ("ours", "onnx"))
        yield beside(f"serving.each_more_worker.{architecture}", more, theirs, "MB")


def _memory_and_start(package: ModelPackage, tag: str, load: Load, paths: list[Path]) -> Iterator[Figure]:
    """Measure one worker: how long it takes to start, and its memory, with one client and with many."""
    architecture, messages = package.spec.architecture, _messages(paths)
    few, many = min(load.clients), max(load.clients)
    bare = loop(package, paths, len(paths)).memory

    def grown(server: Server) -> list[float]:
        memory = []
        for clients in (few, many):
            server.cpu(messages, clients=clients, requests=load.requests)
            memory.append(server.resident())
        return memory

    with deployed(tag, package, 1) as ours:
        start = ours.start
        with_one, with_many = grown(ours)
    with rival("onnx", package, 1) as theirs:
        yield beside(f"serving.start.{architecture}", start, theirs.start, "seconds until ready")
    yield beside(f"serving.first_worker.{architecture}", with_one, bare, "MB")
    yield beside(f"serving.memory_under_load.{architecture}.{many}", with_many, with_one, "MB")


def _under_pressure(
    package: ModelPackage, tags: list[str], load: Load, messages: list[bytes], only: Sequence[str], how: Pressure
) -> Iterator[Figure]:
    with deployed(tags[0], package, load.workers) as server:
        server.cpu(messages, clients=max(load.clients), requests=8 * load.workers)  # warm
        if "load" in only:
            yield from pressure.latency(server, messages, how)
        if "endurance" in only:
            yield from pressure.endurance(server, messages, how)
        if "changes" in only:
            yield from pressure.changes(server.port, messages, how, changing(package, tags))


def _export(architecture: str, dataset: ImageDataset, image_size: int, path: Path) -> Exported:
    torch.manual_seed(0)
    model = create_classifier(architecture, "none", len(dataset.classes), image_size).eval()
    preprocessing = preprocessing_of(model, image_size)
    untrained = EpochResult(0, 0.0, 0.0, 0.0, 0.0)
    trained = TrainedModel(model, architecture, dataset.classes, preprocessing, 1.0, 0.0, (untrained,), untrained)
    package = export_package(trained, dataset, path, name=architecture, weights="none", seed=0)
    return Exported(model, preprocessing, package)


def _pictures(width: int, height: int, folder: Path) -> list[Path]:
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{index}.jpg" for index in range(DIFFERENT)]
    for index, path in enumerate(paths):
        rng = np.random.default_rng(index)
        moth = np.asarray(Image.fromarray(draw_moth(index % SPECIES, rng, 96)).resize((width, height)), dtype=np.int16)
        grain = rng.integers(-GRAIN, GRAIN + 1, (height, width, 1), dtype=np.int16)
        Image.fromarray((moth + grain).clip(0, 255).astype(np.uint8)).save(path, quality=90)
    return paths


def _messages(paths: list[Path]) -> list[bytes]:
    return [predict_request(path.read_bytes()) for path in paths]


def _without_http(exported: Exported, images: list[bytes], rounds: int) -> Iterator[Figure]:
    """Measure from a file's bytes to probabilities with one thread each, as one worker of the endpoint has it."""
    runtime = Runtime(exported.package)
    with _one_thread():
        for name, batch in (("serving.picture", images[:1]), ("serving.batch_of_8", images)):
            yield compare(
                name,
                lambda batch=batch: runtime.predict(batch),
                lambda batch=batch: _eager(exported.model, exported.preprocessing, batch),
                rounds=rounds,
                per=len(batch),
            )


def _in_batches(package: ModelPackage, images: list[bytes], rounds: int) -> Iterator[Figure]:
    """Measure pictures that come at once beside one after the other: from a file's bytes on, and the graph alone.

    In CPU time, with one thread, as one worker of the endpoint has it.
    """
    runtime = Runtime(package)
    tensors = np.stack([runtime.preprocess(image) for image in images])

    def pictures(size: int) -> None:
        for start in range(0, len(images), size):
            runtime.predict(images[start : start + size])

    def graph(size: int) -> None:
        for start in range(0, len(images), size):
            runtime.predict_array(tensors[start : start + size])

    for what, run in (("pictures", pictures), ("graph", graph)):
        for size in BATCHES:
            yield compare(
                f"serving.{what}_in_batches_of_{size}.{package.spec.architecture}",
                lambda run=run, size=size: run(size),
                lambda run=run: run(1),
                rounds=rounds,
                per=len(images),
                clock=time.process_time,
            )


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@torch.inference_mode()
def _eager(model: nn.Module, preprocessing: Preprocessing, images: list[bytes]) -> torch.Tensor:
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (preprocessing.mean, preprocessing.std))
    size = (preprocessing.image_size, preprocessing.image_size)
    rows = []
    for data in images:
        picture = np.array(Image.open(io.BytesIO(data)).convert("RGB").resize(size, Image.Resampling.BICUBIC))
        rows.append((torch.from_numpy(picture).permute(2, 0, 1).float() / 255 - mean) / std)
    return model(torch.stack(rows)).softmax(dim=1)


@click.command()
@click.option("--architecture", multiple=True, default=Load.architectures, show_default=True, help="May be repeated.")
@click.option("--requests", default=Load.requests, show_default=True, help="In a measurement.")
@click.option("--rounds", default=Load.rounds, show_default=True, help="Measurements, of which the median counts.")
@click.option("--workers", default=Load.workers, show_default=True, help="Of each service.")
@click.option("--only", multiple=True, type=click.Choice(PARTS), help="May be repeated; without it, all parts.")
def main(architecture: tuple[str, ...], requests: int, rounds: int, workers: int, only: tuple[str, ...]) -> None:
    """Print one JSON line a figure."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers end, too
    load = Load(architecture, requests=requests, rounds=rounds, workers=workers)
    show(figures(load, only=only or PARTS))


if __name__ == "__main__":
    main()
