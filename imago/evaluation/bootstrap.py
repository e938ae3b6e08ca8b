"""How far the figures would move, had other pictures of the same kind been drawn."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from imago.evaluation.calibration import BINS, before_temperature, bin_of

LEAST_PROBABILITY = 1e-12  # that a log loss is taken of
Z95 = 1.959963984540054
_AT_ONCE = 4_000_000  # pictures drawn, over all samples that are in memory together
_OVER_CLASSES = ("balanced_accuracy", "macro_f1")
_FROM_BINS = ("expected_calibration_error", "uncalibrated_expected_calibration_error")

Floats = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Outcomes:
    """What each picture adds to the figures, so that any weights of the pictures are judged by matrix products."""

    means: dict[str, Floats]  # (N,) by figure: what it is the mean of
    gaps: dict[str, Floats]  # (N, bins) by figure: confidence less rightness, in the bin of the confidence
    shown: Floats  # (N, C): 1 at the picture's class
    answered: Floats  # (N, C): 1 at the model's answer

    @classmethod
    def of(cls, probabilities: Floats, labels: npt.NDArray[np.integer], temperature: float) -> "Outcomes":
        """Take probabilities (N, C), which were divided by the temperature, and labels (N,)."""
        rows, classes = np.arange(len(labels)), np.arange(probabilities.shape[1])
        uncalibrated = before_temperature(probabilities, temperature)
        likeliest = np.argsort(-probabilities, axis=1, kind="stable")[:, :5]
        among_five = (likeliest == labels[:, None]).any(axis=1)
        answers = probabilities.argmax(axis=1)
        right = answers == labels
        return cls(
            means={
                "top5": (among_five & (probabilities[rows, labels] > 0)).astype(np.float64),  # 0: it is not known
                "log_loss": -np.log(np.clip(probabilities[rows, labels], LEAST_PROBABILITY, 1.0)),
                "uncalibrated_log_loss": -np.log(np.clip(uncalibrated[rows, labels], LEAST_PROBABILITY, 1.0)),
                "mean_confidence": probabilities.max(axis=1),
            },
            gaps={
                name: _gaps(values.max(axis=1), right)
                for name, values in zip(_FROM_BINS, (probabilities, uncalibrated), strict=True)
            },
            shown=(labels[:, None] == classes).astype(np.float32),
            answered=(answers[:, None] == classes).astype(np.float32),
        )

    def figures(self, weights: Floats) -> dict[str, npt.NDArray[np.float64]]:
        """Return each figure (S,) of the pictures under weights (S, N), such as how often each was drawn."""
        total = weights.sum(axis=1)
        found = {name: weights @ values / total for name, values in self.means.items()}
        found |= {name: np.abs(weights @ gap).sum(axis=1) / total for name, gap in self.gaps.items()}
        support, predicted = weights @ self.shown, weights @ self.answered
        right = weights @ (self.shown * self.answered)
        classes = (support > 0).sum(axis=1)  # those that are not shown are left out of the means
        found["balanced_accuracy"] = (right / np.maximum(support, 1)).sum(axis=1) / classes
        found["macro_f1"] = (
            np.where(support > 0, 2 * right / np.maximum(support + predicted, 1), 0).sum(axis=1) / classes
        )
        return found

    def intervals(self, samples: int, seed: int) -> dict[str, tuple[float, float]]:
        """Return the range that holds a figure in 95 of 100 samples of as many pictures, drawn with replacement.

        Top-5 accuracy has Wilson's range instead, and a calibration error that of `_of_calibration`. Balanced accuracy
        and macro F1 have at least Wilson's for the effective sample size of the classes' weights (Kish 1965; Franco et
        al. 2019, https://pmc.ncbi.nlm.nih.gov/articles/PMC6690503): a model that is always right is so in every
        sample, too. For no samples there is top-5's alone.
        """
        count = len(self.shown)
        whole = self.figures(np.ones((1, count)))
        ranges = {"top5": wilson(float(whole["top5"][0]), count)}
        if not samples:
            return ranges
        support = self.shown.sum(axis=0, dtype=np.float64)
        support = support[support > 0]
        effective = len(support) ** 2 / (1 / support).sum()
        parts = []
        for weights in _drawn(count, samples, seed):
            noise = {f"{name} noise": np.abs((weights - 1) @ gap).sum(axis=1) for name, gap in self.gaps.items()}
            parts.append(self.figures(weights) | {name: values / count for name, values in noise.items()})
        found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        for name in whole.keys() - ranges.keys():
            figure = float(whole[name][0])
            if name in self.gaps:
                ranges[name] = _of_calibration(figure, found[name], found[f"{name} noise"])
                continue
            low, high = (float(bound) for bound in np.percentile(found[name], (2.5, 97.5)))
            if name in _OVER_CLASSES:
                least = wilson(figure, effective)
                low, high = min(low, least[0]), max(high, least[1])
            ranges[name] = low, high
        return ranges


def wilson(share: float, total: float) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share of so many pictures, which stays honest near 0 and 1."""
    square = Z95**2
    centre = (share + square / (2 * total)) / (1 + square / total)
    half = Z95 * (share * (1 - share) / total + square / (4 * total**2)) ** 0.5 / (1 + square / total)
    return max(0.0, centre - half) if share > 0 else 0.0, min(1.0, centre + half) if share < 1 else 1.0


def _of_calibration(figure: float, samples: Floats, noise: Floats) -> tuple[float, float]:
    """Return the range of a calibration error, by what it is in samples, and by how far their bins are off in sum (S,).

    Noise in the bins only adds to such an error, in the test pictures and once more in a sample of them. So the range
    is the basic one, which mirrors the samples at the figure (Davison and Hinkley 1997, section 5.2). It begins at 0
    where noise alone explains the figure, and ends no lower than the samples do, their excess taken off: mirrored, the
    error of a model that is far off would end too low.
    """
    low, high = np.percentile(samples, (2.5, 97.5))
    by_chance = figure <= np.percentile(noise, 97.5)
    begin = 0.0 if by_chance else max(0.0, 2 * figure - high)
    return float(begin), float(min(1.0, max(2 * figure - low, high - samples.mean() + figure)))


def _gaps(confidence: Floats, right: npt.NDArray[np.bool_]) -> Floats:
    gaps = np.zeros((len(confidence), BINS))
    gaps[np.arange(len(confidence)), bin_of(confidence)] = confidence - right
    return gaps


def _drawn(count: int, samples: int, seed: int) -> Iterator[npt.NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    block = max(1, _AT_ONCE // count)
    for start in range(0, samples, block):
        rows = min(block, samples - start)
        places = rng.integers(0, count, size=(rows, count)) + count * np.arange(rows)[:, None]
        yield np.bincount(places.ravel(), minlength=rows * count).reshape(rows, count).astype(np.float64)
