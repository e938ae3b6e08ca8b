"""The model card: the facts of a model that a reader of its package wants first."""

from collections.abc import Mapping, Sequence

from imago.errors import some_of
from imago.serving.package import ModelSpec

_SCARCE = 3  # classes that are named


def model_card(spec: ModelSpec, counts: Mapping[str, Mapping[str, int]]) -> str:
    """Return the card as Markdown; `counts` are the pictures by class and split."""
    size = spec.preprocessing.image_size
    facts = [
        ("architecture", f"`{spec.architecture}` (timm)"),
        ("weights it began with", f"`{spec.weights}`"),
        ("licence of those weights", spec.weights_license),
        ("classes", str(len(spec.classes))),
        ("input", f"{size}×{size} pixels, RGB; the shorter side is scaled, the centre cut out"),
        ("mean, standard deviation", f"{_numbers(spec.preprocessing.mean)}; {_numbers(spec.preprocessing.std)}"),
        ("validation accuracy", f"{spec.metrics['val_accuracy']:.3f}"),
        ("kept", kept(spec.metrics)),
        ("validation loss", f"{spec.metrics['val_loss']:.3f} before calibration"),
        ("temperature", f"{spec.temperature:.3f}, fitted on the validation pictures"),
        ("answers are rejected below", f"{spec.reject_threshold:.3f}" if spec.reject_threshold else "nothing"),
        ("data", f"`{spec.dataset_fingerprint}`"),
        ("seed", str(spec.seed)),
        *([("training took", spec.spent.time()), ("energy and carbon", spec.spent.estimate())] if spec.spent else []),
        ("made", spec.created),
        ("with", ", ".join(f"{name} {version}" for name, version in spec.versions.items())),
    ]
    return "\n".join(
        [
            f"# {plain(spec.name)}",
            "",
            f"Tells {len(spec.classes)} classes of pictures apart. It knows only pictures like those counted below; "
            "of anything else it names the class that is least unlike.",
            "",
            "| | |",
            "|---|---|",
            *(f"| {name} | {plain(value)} |" for name, value in facts),
            "",
            "## Limits of use",
            "",
            *(f"- {plain(limit)}" for limit in _limits(spec, counts)),
            "",
            "## Pictures",
            "",
            "| class | train | val | test |",
            "|---|---:|---:|---:|",
            *(_row(label, counts.get(label, {})) for label in spec.classes),
            "",
            "## Training",
            "",
            *(_recipe(spec) if spec.recipe else ()),
            "| epoch | training loss | validation loss | validation accuracy | seconds |",
            "|---:|---:|---:|---:|---:|",
            *(
                f"| {'head' if result.epoch == 0 else result.epoch} | {result.train_loss:.3f} | {result.val_loss:.3f} "
                f"| {result.val_accuracy:.3f} | {result.seconds:.0f} |"
                for result in spec.history
            ),
            "",
        ]
    )


def _limits(spec: ModelSpec, counts: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Return what follows from the facts of training; where the model is weak, its evaluation adds."""
    size = spec.preprocessing.image_size
    taught = {label: counts.get(label, {}).get("train", 0) for label in spec.classes}
    scarce = sorted(taught, key=lambda label: (taught[label], label))[:_SCARCE]
    untested = [label for label in spec.classes if not counts.get(label, {}).get("test")]
    fewest = ", ".join(f"{label} ({taught[label]})" for label in scarce)
    withheld = (
        f"answers below a probability of {spec.reject_threshold:.3f} are rejected"
        if spec.reject_threshold
        else "it never withholds an answer"
    )
    limits = [
        f"It answers with one of its {len(spec.classes)} classes, whatever a picture shows; {withheld}.",
        f"It sees the middle square of a picture, at {size}×{size} pixels, and nothing that is outside or finer.",
    ]
    if len(set(taught.values())) > 1:
        limits.append(f"It was taught with fewest pictures of {fewest}.")
    if untested:
        them = "it" if len(untested) == 1 else "them"
        limits.append(f"Nobody knows how it does on {some_of(untested, most=_SCARCE)}: no test picture shows {them}.")
    if spec.weights != "none" and spec.weights_license == "not stated":
        limits.append("The licence of the weights that it began with is not stated: find out before you pass it on.")
    return limits


def _recipe(spec: ModelSpec) -> list[str]:
    rows = (f"| {key} | {plain(_value(value))} |" for key, value in spec.recipe.items())
    return [
        "What is off is not listed; the keys are those of `training`.",
        "",
        "| key | value |",
        "|---|---|",
        *rows,
        "",
    ]


def _value(value: bool | float | str) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


def kept(metrics: Mapping[str, float]) -> str:
    """Say which of the trained states the model is, and what the head on frozen features alone reached."""
    head, epoch = metrics.get("head_val_accuracy"), int(metrics.get("best_epoch", 0))
    if head is None:
        return f"epoch {epoch}, the best on the validation pictures"
    if epoch == 0:
        tuned = ", nothing was fine-tuned" if metrics.get("epochs") == 0 else ": no epoch of fine-tuning did better"
        return f"the head on frozen features ({head:.3f}){tuned}"
    return f"epoch {epoch}; the head on frozen features alone reached {head:.3f}"


def _row(label: str, counts: Mapping[str, int]) -> str:
    return f"| {plain(label)} | {' | '.join(str(counts.get(split, 0)) for split in ('train', 'val', 'test'))} |"


def plain(text: str) -> str:
    """Return text that stays itself within a Markdown table."""
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)
