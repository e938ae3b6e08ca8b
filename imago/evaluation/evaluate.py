"""Judges a model package on the test split, through the very runtime that will serve it."""

import os
import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from imago.config import EvaluationConfig
from imago.data.dataset import ImageDataset
from imago.errors import DataRefused
from imago.evaluation.cost import count_operations
from imago.evaluation.memory import answering_memory
from imago.evaluation.metrics import compute_metrics
from imago.evaluation.outside import outside_pictures
from imago.evaluation.page import render
from imago.evaluation.rejection import Strangers, judge_rejection, judge_strangers
from imago.evaluation.report import PREDICTIONS, EvaluationReport, Findings
from imago.evaluation.robustness import measure_robustness
from imago.evaluation.slices import find_slices
from imago.serving.package import ModelPackage
from imago.serving.runtime import Prediction, Runtime, Unreadable

_BATCH = 32
_TIMED, _WARM_UP = 30, 3
_MOST_THREADS = 8


def evaluate(
    package: ModelPackage,
    dataset: ImageDataset,
    config: EvaluationConfig,
    seed: int,
    *,
    figures_only: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> EvaluationReport:
    """Answer every test picture and report on it; `on_progress` is told pictures done, and of how many.

    A test picture of a class that the model does not know counts as answered wrong, so that models of different
    classes can be compared on the same pictures. `figures_only` leaves out what no comparison needs: worse pictures,
    strangers, MACs and memory, and the page, which is empty. Raises DataRefused for no test pictures, or an unreadable
    one.
    """
    test = dataset.split("test")
    if not len(test):
        raise DataRefused("There are no test pictures to judge the model by: give the dataset a test split.")
    runtime = Runtime(package, threads=_threads())
    answers = _answers(runtime, test, on_progress)
    unknown = tuple(sorted(set(test.labels) - set(runtime.classes)))
    classes = (*runtime.classes, *unknown)
    probabilities = _probabilities(answers, classes)
    truth = np.array([classes.index(label) for label in test.labels], dtype=np.int64)
    right = probabilities.argmax(axis=1) == truth
    metrics = compute_metrics(
        probabilities,
        truth,
        classes,
        bootstrap_samples=config.bootstrap_samples,
        seed=seed,
        temperature=package.spec.temperature,
    )
    latencies = _latencies(package, test)
    parameters, macs = (None if figures_only else count_operations(package)) or (None, None)
    features = {name: np.array([answer.features[name] for answer in answers]) for name in answers[0].features}
    features["pixels"] = np.array([answer.width * answer.height for answer in answers], dtype=np.float64)
    taught = dataset.counts()
    features["class size"] = np.array([taught[label]["train"] for label in test.labels], dtype=np.float64)
    worse = config.robustness and not figures_only
    robustness = measure_robustness(runtime, test, seed=seed) if worse else []
    rejected = np.array([answer.rejected for answer in answers])
    findings = Findings(
        model=package.spec.name,
        architecture=package.spec.architecture,
        package_fingerprint=package.fingerprint,
        classes=runtime.classes,
        unknown_classes=unknown,
        dataset_fingerprint=dataset.fingerprint,
        test_fingerprint=test.fingerprint,
        validation=package.spec.metrics,
        temperature=package.spec.temperature,
        reject_threshold=package.spec.reject_threshold,
        metrics=metrics,
        rejected=int(rejected.sum()),
        rejection=judge_rejection(
            probabilities.max(axis=1),
            right,
            rejected,
            None if figures_only else _strangers(runtime, test.labels, answers, config, seed),
            validation=_on_validation(package),
        ),
        slices=tuple(find_slices(right, test.labels, features, test.attributes)),
        robustness=tuple(robustness),
        latency_ms=float(np.median(latencies)),
        latency_ms_p95=float(np.percentile(latencies, 95)),
        suspects=package.suspects,
        weights=package.spec.weights,
        weights_license=package.spec.weights_license,
        spent=package.spec.spent,
        model_bytes=sum(file.stat().st_size for file in package.path.glob(f"{package.onnx.name}*")),
        parameters=parameters,
        macs=macs,
        memory_bytes=None if figures_only else answering_memory(package),
    )
    predictions = _table(test, answers, probabilities)
    page = "" if figures_only else render(findings, predictions, dataset, runtime)
    return EvaluationReport(**dict(findings), predictions=predictions, html=page)


def _answers(runtime: Runtime, test: ImageDataset, on_progress: Callable[[int, int], None] | None) -> list[Prediction]:
    answers: list[Prediction] = []
    for start in range(0, len(test), _BATCH):
        rows = range(start, min(start + _BATCH, len(test)))
        images = [test.image(row) for row in rows]
        found = runtime.predict(images, top_k=len(runtime.classes))
        for row, answer in zip(rows, found, strict=True):
            if isinstance(answer, Unreadable):
                raise DataRefused(f"Test picture {test.ids[row]} cannot be read: {answer.message}. Validate the data.")
            answers.append(answer)
        if on_progress:
            on_progress(len(answers), len(test))
    return answers


def _strangers(
    runtime: Runtime, labels: list[str], answers: list[Prediction], config: EvaluationConfig, seed: int
) -> Strangers | None:
    """Judge the answers to pictures from outside, and to test pictures of classes that the model was never taught."""
    size = runtime.spec.preprocessing.image_size
    outside = outside_pictures(config.outside, runtime.classes, image_size=size, seed=seed)
    found = runtime.predict(outside.images, top_k=1)
    strange = [answer for answer in found if isinstance(answer, Prediction)]
    by_known: dict[bool, list[Prediction]] = {True: [], False: []}
    for label, answer in zip(labels, answers, strict=True):
        by_known[label in runtime.classes].append(answer)
    own, untaught = by_known[True], by_known[False]
    if config.outside and not strange:
        raise DataRefused(f"evaluation.outside: none of the pictures of {config.outside} that were tried can be read.")
    what = [f"{len(strange)} {outside.what}"] if strange else []
    what += [f"{len(untaught)} test pictures of classes that it was never taught"] if untaught else []
    if not own or not what:
        return None
    strange += untaught
    return judge_strangers(
        " and ".join(what),
        np.array([answer.probability for answer in strange]),
        [answer.rejected for answer in strange],
        np.array([answer.probability for answer in own]),
        are_easy=outside.are_easy and not untaught,
    )


def _on_validation(package: ModelPackage) -> tuple[float | None, float | None]:
    """Return the coverage and error of the threshold on the validation pictures, which the package remembers."""
    rows = pq.read_table(package.reference, columns=["label", "rejected", "feedback"]).to_pylist()
    told = [row for row in rows if row["feedback"] is not None]
    stands = [row for row in told if not row["rejected"]]
    wrong = sum(row["label"] != row["feedback"] for row in stands)
    return len(stands) / len(told) if told else None, wrong / len(stands) if stands else None


def _probabilities(answers: list[Prediction], classes: tuple[str, ...]) -> npt.NDArray[np.float64]:
    column = {label: index for index, label in enumerate(classes)}
    probabilities = np.zeros((len(answers), len(classes)))
    for row, answer in enumerate(answers):
        for label, probability in answer.top:
            probabilities[row, column[label]] = probability
    return probabilities


def _latencies(package: ModelPackage, test: ImageDataset) -> list[float]:
    runtime = Runtime(package, threads=1)
    milliseconds = []
    for turn in range(_WARM_UP + _TIMED):
        image = [test.image(turn % len(test))]
        start = time.perf_counter()
        runtime.predict(image)
        milliseconds.append(1000 * (time.perf_counter() - start))
    return milliseconds[_WARM_UP:]


def _table(test: ImageDataset, answers: list[Prediction], probabilities: npt.NDArray[np.float64]) -> pa.Table:
    return pa.table(
        {
            "id": test.ids,
            "sha256": test.digests,
            "label": test.labels,
            "predicted": [answer.label for answer in answers],
            "probability": [answer.probability for answer in answers],
            "correct": [answer.label == label for answer, label in zip(answers, test.labels, strict=True)],
            "rejected": [answer.rejected for answer in answers],
            "probabilities": list(probabilities.astype(np.float32)),
            **{name: [answer.features[name] for answer in answers] for name in ("brightness", "contrast", "sharpness")},
            "width": [answer.width for answer in answers],
            "height": [answer.height for answer in answers],
        },
        schema=PREDICTIONS,
    )


def _threads() -> int:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, _MOST_THREADS)
