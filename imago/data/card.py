"""The dataset card: the facts of the accepted data that whoever gets them wants first."""

from imago.data.dataset import SPLITS, ImageDataset
from imago.data.validation import ValidationResult


def dataset_card(accepted: ImageDataset, result: ValidationResult) -> str:
    """Return the card of the accepted pictures as Markdown."""
    counts = accepted.counts()
    in_all = [accepted.splits.count(split) for split in SPLITS]
    found = [check for check in result.checks if check.count]
    return "\n".join(
        [
            "# Pictures",
            "",
            _cell(accepted.origin),
            "",
            "| | |",
            "|---|---|",
            f"| pictures | {len(accepted):,} of {result.found:,} found |",
            f"| classes | {len(accepted.classes)} |",
            f"| fingerprint | `{accepted.fingerprint}`, of the bytes, labels and splits |",
            "",
            "| class | train | val | test |",
            "|---|---:|---:|---:|",
            *(f"| {_cell(name)} | {' | '.join(str(row[split]) for split in SPLITS)} |" for name, row in counts.items()),
            f"| in all | {' | '.join(map(str, in_all))} |",
            "",
            "## What the checks found",
            "",
            *(f"- `{check.id}` ({check.severity}): {_cell(check.sentence)}" for check in found),
            *([] if found else ["Nothing."]),
            "",
            f"## Left out: {len(result.quarantined):,}",
            "",
            *(f"- {_cell(name)}: {_cell(reason)}" for name, reason in result.quarantined.items()),
            "",
            "Where the pictures come from and under which licence, only whoever collected them can say.",
            "",
        ]
    )


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
