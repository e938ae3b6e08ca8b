"""`run.py data …`: look at a data set, check it, compare two versions, write the accepted pictures out."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

Command = Callable[..., Any]

data = click.Group("data", help="Describe, check, compare and export a data set.")


def _options(function: Command) -> Command:
    for option in (
        click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output, and nothing else."),
        click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override one key; repeatable."),
        click.option("--config", default="training", show_default=True, metavar="NAME_OR_PATH", help="Configuration."),
    ):
        function = option(function)
    return function


_source = click.option(
    "--data", "source", metavar="PATH_OR_URI", help="Where the pictures are; nothing: the embedded synthetic moths."
)


@data.command()
@_source
@_options
def describe(source: str | None, config: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Say how the source was read, and what is in it."""
    from cli.logs import stdout_to_stderr
    from imago.data.dataset import SPLITS
    from imago.data.statistics import compute_statistics

    with stdout_to_stderr():
        settings, dataset = _load(config, overrides, source)
        table = compute_statistics(dataset, max_pixels=settings.data.max_pixels)
    readable = table.readable
    counts = dataset.counts()
    outcome = {
        "origin": dataset.origin,
        "pictures": len(dataset),
        "unreadable": len(dataset) - len(readable),
        "classes": list(dataset.classes),
        "splits": {split: sum(by_split[split] for by_split in counts.values()) for split in SPLITS},
        "counts": counts,
        "formats": {str(name): int(count) for name, count in readable["format"].value_counts().items()},
        "width": _range(readable["width"]),
        "height": _range(readable["height"]),
        "bytes": _range(table.frame["bytes"]),
        "fingerprint": dataset.fingerprint,
    }
    if as_json:
        click.echo(json.dumps(outcome))
        return
    click.echo(dataset.origin)
    click.echo(f"{len(dataset):,} pictures, {outcome['unreadable']:,} of them not readable")
    click.echo(f"{len(dataset.classes)} classes; " + ", ".join(f"{n:,} in {s}" for s, n in outcome["splits"].items()))
    for name, by_split in counts.items():
        click.echo(f"  {name:<32} " + " ".join(f"{by_split[split]:>7,}" for split in SPLITS))
    for name in ("width", "height", "bytes"):
        low, middle, high = (outcome[name][key] for key in ("min", "median", "max"))
        click.echo(f"{name}: {low:,} to {high:,}, median {middle:,}")
    click.echo("formats: " + ", ".join(f"{name} {count:,}" for name, count in outcome["formats"].items()))
    click.echo(f"fingerprint: {dataset.fingerprint}")


@data.command()
@_source
@click.option(
    "--docs",
    type=click.Path(file_okay=False, path_type=Path),
    help="Build Great Expectations' own pages in this folder.",
)
@_options
@click.pass_context
def check(
    ctx: click.Context, source: str | None, docs: Path | None, config: str, overrides: tuple[str, ...], as_json: bool
) -> None:
    """Run every check without training; exits with 3 where the data is refused."""
    from cli.logs import stdout_to_stderr
    from imago import home
    from imago.data.expectations import write_data_docs
    from imago.data.statistics import compute_statistics
    from imago.data.validation import ValidationResult
    from imago.errors import DataRefused

    with stdout_to_stderr():
        try:
            settings, dataset = _load(config, overrides, source)
            result = _validate(dataset, settings)
            report = str(home.write_report("data.html", result.page))
            if docs:
                table = compute_statistics(dataset, max_pixels=settings.data.max_pixels)
                docs = write_data_docs(table.without(result.quarantined), settings.data, docs)
        except DataRefused as refusal:
            result, report = ValidationResult.of_nothing(str(refusal)), None
    outcome = result.to_json()
    if as_json:
        click.echo(json.dumps({**outcome, "report": report, "docs": str(docs) if docs else None}))
    else:
        click.echo(f"{'✓ Accepted' if result.verdict == 'accepted' else '✗ Refused'}. {result.origin}")
        click.echo(f"{result.found:,} found, {result.accepted:,} accepted, {len(result.quarantined):,} in quarantine")
        for found in (found for found in result.checks if found.count):
            click.echo(f"  {found.severity:<10} {found.id}: {found.sentence}")
        for sentence in outcome["expectations"]["warning"]:
            click.echo(f"  {'warn':<10} expectation: {sentence}.")
        if report:
            click.echo(f"report: {report}")
        if docs:
            click.echo(f"docs: {docs}")
    try:
        result.raise_if_refused()
    except DataRefused as refusal:
        click.echo(f"error: {refusal}", err=True)
        ctx.exit(refusal.exit_code)


@data.command()
@click.argument("old", metavar="OLD")
@click.argument("new", metavar="NEW")
@_options
def diff(old: str, new: str, config: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Name the pictures added, removed, relabelled and moved between splits from one source to another.

    A picture is known by its bytes: one that was only renamed has not changed.
    """
    from cli.logs import stdout_to_stderr
    from imago.data.difference import compare

    with stdout_to_stderr():
        before, after = (_load(config, overrides, source)[1] for source in (old, new))
        difference = compare(before, after)
    if as_json:
        versions = {
            name: {"source": source, "pictures": len(dataset), "fingerprint": dataset.fingerprint}
            for name, source, dataset in (("old", old, before), ("new", new, after))
        }
        click.echo(json.dumps(versions | difference.to_json()))
        return
    if difference.identical:
        click.echo("The same pictures under the same labels in the same splits.")
    for mark, ids in (("+", difference.added), ("-", difference.removed)):
        for name in ids:
            click.echo(f"{mark} {name}")
    for what, changes in (("label", difference.relabelled), ("split", difference.moved)):
        for change in changes:
            click.echo(f"~ {change.id}: {what} {change.before} → {change.after}")


@data.command()
@_source
@click.option("--to", "target", default="data/processed", show_default=True, type=click.Path(path_type=Path))
@click.option("--format", "layout", default="folders", show_default=True, type=click.Choice(["folders", "parquet"]))
@_options
def export(
    source: str | None, target: Path, layout: Any, config: str, overrides: tuple[str, ...], as_json: bool
) -> None:
    """Write the accepted pictures out, unchanged, as split folders or as one Parquet file."""
    from cli.logs import stdout_to_stderr
    from imago.data.card import dataset_card
    from imago.data.export import export as write
    from imago.data.export import refuse_overlap

    with stdout_to_stderr():
        refuse_overlap(target, source)
        settings, dataset = _load(config, overrides, source)
        result = _validate(dataset, settings)
        result.raise_if_refused()
        accepted = dataset.without(result.quarantined)
        write(accepted, target, layout, card=dataset_card(accepted, result))
    outcome = {
        "path": str(target),
        "format": layout,
        "pictures": len(accepted),
        "quarantined": len(result.quarantined),
        "fingerprint": accepted.fingerprint,
    }
    if as_json:
        click.echo(json.dumps(outcome))
    else:
        click.echo(f"{len(accepted):,} pictures written to {target}; {len(result.quarantined):,} left in quarantine")


def _load(config: str, overrides: tuple[str, ...], source: str | None) -> tuple[Any, Any]:
    from imago.config import load_config, with_source
    from imago.data.sources import load_dataset

    settings = load_config(config, overrides)
    if source is not None:
        settings = with_source(settings, source)
    return settings, load_dataset(settings.data, settings.seed)


def _validate(dataset: Any, settings: Any) -> Any:
    from imago.data.accepted import last_accepted
    from imago.data.statistics import compute_statistics
    from imago.data.validation import validate

    previous = last_accepted(settings.data)
    return validate(dataset, compute_statistics(dataset, max_pixels=settings.data.max_pixels), settings.data, previous)


def _range(values: Any) -> dict[str, int]:
    if not len(values):
        return {"min": 0, "median": 0, "max": 0}
    return {"min": int(values.min()), "median": int(values.median()), "max": int(values.max())}
