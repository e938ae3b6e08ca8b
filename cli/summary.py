"""What a run says at its end to the person who started it: the verdict first, then figures, places, next steps."""

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from imago.config import ModelConfig


def show(outcome: dict[str, Any]) -> None:
    """Print a run's outcome on standard output."""
    console = Console(highlight=False, soft_wrap=True)
    if outcome["status"] == "dry-run":
        console.print(f"Dry run: the {outcome['pipeline']} pipeline would run; its configuration is sound.")
        return
    console.print()
    for line in _VERDICTS[outcome["pipeline"]](outcome):
        console.print(line)
    table = Table.grid(padding=(0, 2))
    for name, value in _rows(outcome):
        table.add_row(f"[dim]{name}[/]", escape(str(value)))
    console.print(table)
    following = _NEXT.get(outcome["pipeline"], [])
    if following:
        console.print("\nNext:")
        for command, purpose in following:
            console.print(f"  {escape(command + _named(command, outcome)):<66} [dim]{purpose}[/]")


def _named(command: str, outcome: dict[str, Any]) -> str:
    """Return the option that makes a command mean the model of this run, where it is not the default one."""
    name = outcome.get("model", {}).get("name")
    if name in {None, ModelConfig().name} or not command.endswith("--pipeline monitoring"):
        return ""
    return f" --set model.name={name}"


def _training_verdict(outcome: dict[str, Any]) -> list[str]:
    accuracy = outcome["metrics"]["test_accuracy"]
    model = outcome["model"]
    promoted = "in production" if model["stage"] == "production" else "not promoted"
    mark = "[green]✓[/]" if model["stage"] == "production" else "[yellow]–[/]"
    return [
        f"{mark} [bold]{escape(model['name'])} version {model['version']}: "
        f"{accuracy:.1%} of the test pictures named rightly; {promoted}[/]",
        f"  {escape(outcome['reason'])}",
    ]


def _inference_verdict(outcome: dict[str, Any]) -> list[str]:
    failed = f", {outcome['failed']} could not be read (the reason stands in their row)" if outcome["failed"] else ""
    return [f"[green]✓[/] [bold]{outcome['count']} pictures predicted{failed}[/]"]


def _monitoring_verdict(outcome: dict[str, Any]) -> list[str]:
    sentence = {
        "stable": "[green]✓[/] [bold]Stable: the endpoint is asked what the model was trained for[/]",
        "drifted": "[red]![/] [bold]Drifted: the endpoint is asked something else than the model was trained for[/]",
        "not_enough_data": "[yellow]–[/] [bold]Not enough data yet for a verdict[/]",
    }[outcome["verdict"]]
    return [sentence]


def _sweep_verdict(outcome: dict[str, Any]) -> list[str]:
    return [f"[green]✓[/] [bold]{len(outcome['trials'])} trials; the best: {escape(str(outcome['best']))}[/]"]


def _rows(outcome: dict[str, Any]) -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    if "data" in outcome:
        data = outcome["data"]
        rows.append(
            ("pictures", f"{data['found']} found, {data['quarantined']} in quarantine, {data['classes']} classes")
        )
        rows.append(("source", data["origin"]))
        rows.append(("trained", f"{outcome['model']['architecture']}, weights: {outcome['model']['weights']}"))
    for name, value in outcome.get("metrics", {}).items():
        rows.append((name.replace("_", " "), f"{value:.4g}"))
    if outcome["pipeline"] == "monitoring":
        rows.append(("requests", outcome["window"]["count"]))
    if outcome.get("predictions"):
        rows.append(("predictions", outcome["predictions"]))
    if outcome.get("endpoint"):
        rows.append(("endpoint", f"{outcome['endpoint']}/predict"))
        rows.append(("web page", f"{outcome['endpoint']}/ui"))
    if outcome.get("example"):
        example = outcome["example"]
        rows.append(("one picture", f"{example['picture']} → {example['label']} ({example['probability']:.0%})"))
    rows.extend((f"{name} report", path) for name, path in outcome.get("reports", {}).items())
    rows.append(("dashboard", "zenml login --local"))
    rows.append(("run", f"{outcome['run_id']} on stack {outcome['stack']}"))
    return rows


_VERDICTS = {
    "training": _training_verdict,
    "inference": _inference_verdict,
    "monitoring": _monitoring_verdict,
    "sweep": _sweep_verdict,
}
_NEXT = {
    "training": [
        ("python run.py predict PICTURE.jpg", "ask the model in production"),
        ("python run.py --pipeline training --data FOLDER", "train on your own pictures, a folder a class"),
        ("python run.py --pipeline monitoring", "has what is asked drifted?"),
        ("python run.py deployment stop", "stop the endpoint"),
    ],
    "inference": [("python run.py --pipeline monitoring", "has what is asked drifted?")],
    "monitoring": [("python run.py --pipeline training --no-cache", "train again")],
    "sweep": [("python run.py --pipeline training --config reports/best.yaml", "train with the best configuration")],
}
