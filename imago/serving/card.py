"""The model card: the facts of a model that a reader of its package wants first."""

from collections.abc import Mapping, Sequence

from imago.serving.package import ModelSpec


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
        ("answers are rejected below", f"{spec.reject_threshold:.3f}"),
        ("data", f"`{spec.dataset_fingerprint}`"),
        ("seed", str(spec.seed)),
        *([("training took", spec.spent.time()), ("energy and carbon", spec.spent.estimate())] if spec.spent else []),
        ("made", spec.created),
        ("with", ", ".join(f"{name} {version}" for name, version in spec.versions.items())),
    ]
    return "\n".join(
        [
            f"# {_cell(spec.name)}",
            "",
            f"Tells {len(spec.classes)} classes of pictures apart. It knows only pictures like those counted below; "
            "of anything else it names the class that is least unlike.",
            "",
            "| | |",
            "|---|---|",
            *(f"| {name} | {_cell(value)} |" for name, value in facts),
            "",
            "## Pictures",
            "",
            "| class | train | val | test |",
            "|---|---:|---:|---:|",
            *(_row(label, counts.get(label, {})) for label in spec.classes),
            "",
            "## Training",
            "",
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


def kept(metrics: Mapping[str, float]) -> str:
    """Say which of the trained states the model is, and what the head on frozen features alone reached."""
    head, epoch = metrics.get("head_val_accuracy"), int(metrics.get("best_epoch", 0))
    if head is None:
        return f"epoch {epoch}, the best on the validation pictures"
    if epoch == 0:
        return f"the head on frozen features ({head:.3f}): no epoch of fine-tuning did better"
    return f"epoch {epoch}; the head on frozen features alone reached {head:.3f}"


def _row(label: str, counts: Mapping[str, int]) -> str:
    return f"| {_cell(label)} | {' | '.join(str(counts.get(split, 0)) for split in ('train', 'val', 'test'))} |"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)
