"""What a run says at its end to the person who started it: the verdict first, then figures, places, next steps."""

import shlex
from typing import Any

from rich.console import Console
from rich.markup import escape

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
    rows = _rows(outcome)
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        console.print(f"[dim]{name:<{width}}[/]  {escape(str(value))}")
    following = _next(outcome)
    if following:
        console.print("\nNext:")
        for command, purpose in following:
            console.print(f"  {escape(command):<66} [dim]{purpose}[/]")


def _next(outcome: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what to type next and what for, about the model of this run."""
    run = "python run.py"
    name = outcome.get("model", {}).get("name")
    named = "" if name in {None, ModelConfig().name} else f" --set model.name={name}"
    watch = (f"{run} --pipeline monitoring{named}", "has what is asked drifted?")
    own = (f"{run} --pipeline training --data FOLDER", "train on your own pictures, a folder a class")
    again = (f"{run} --pipeline training --data FOLDER{named}", "train again, on data that holds the new pictures")
    match outcome["pipeline"]:
        case "training" if outcome["model"]["stage"] != "production":
            epochs = outcome["training"]["epochs"]
            more = (f"--set training.epochs={2 * epochs}", "train for longer")
            tuned = ("--config finetune", "tune the whole network") if epochs == 0 else more
            random = outcome["model"]["weights"] == "none"
            pretrained = (f"{run} --pipeline training … --set model.weights=hub", "start from pretrained weights")
            beside = (f"{run} deployment shadow --name {name}", "how does it do on what is really asked?")
            return [
                *([beside] if outcome.get("shadow") else []),
                (f"{run} data check --data FOLDER", "is it the data?"),
                (f"{run} --pipeline training … {tuned[0]}", tuned[1]),
                *([pretrained] if random else []),
            ]
        case "training" if outcome["endpoint"]:
            stop = f"{run} deployment stop --name {name}"
            return [(f"{run} predict PICTURE.jpg", "ask the endpoint"), own, watch, (stop, "stop the endpoint")]
        case "training":
            return [(f"{run} predict PICTURE.jpg --model {name}", "ask the model in production"), own]
        case "inference":
            return [watch]
        case "monitoring":
            return {"drifted": [again], "not_enough_data": [watch]}.get(outcome["verdict"], [])
        case _:
            best = shlex.quote(outcome["reports"]["configuration"])
            return [(f"{run} --pipeline training --config {best}", "train with the best configuration")]


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
    count, failed = outcome["count"], outcome["failed"]
    if failed == count:
        return [f"[red]✗[/] [bold]None of {count} pictures could be read (the reason stands in their row)[/]"]
    unread = f" of {count}; {failed} could not be read (the reason stands in their row)" if failed else ""
    return [f"[green]✓[/] [bold]{count - failed} pictures predicted{unread}[/]"]


def _monitoring_verdict(outcome: dict[str, Any]) -> list[str]:
    sentence = {
        "stable": "[green]✓[/] [bold]Stable: the endpoint is asked what the model was trained for[/]",
        "drifted": "[red]![/] [bold]Drifted: the endpoint is asked something else than the model was trained for[/]",
        "not_enough_data": "[yellow]–[/] [bold]Not enough data yet for a verdict[/]",
    }[outcome["verdict"]]
    return [sentence]


def _sweep_verdict(outcome: dict[str, Any]) -> list[str]:
    return [f"[green]✓[/] [bold]{len(outcome['trials'])} trials; the best: {escape(str(outcome['best']))}[/]"]


def _trial(trial: dict[str, Any]) -> tuple[str, str]:
    values = {key.removeprefix("training."): value for key, value in trial["values"].items()}
    chosen = ", ".join(
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in values.items()
    )
    state = "" if trial["state"] == "complete" else f" ({trial['state']})"
    return f"trial {trial['number']}", f"{trial['val_accuracy']:.3f}  {chosen}{state}"


def _rows(outcome: dict[str, Any]) -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    if "data" in outcome:
        data = outcome["data"]
        rows.append(
            ("pictures", f"{data['found']} found, {data['quarantined']} in quarantine, {data['classes']} classes")
        )
        rows.append(("source", data["origin"]))
        rows.append(("trained", f"{outcome['model']['architecture']}, weights: {outcome['model']['weights']}"))
    rows.extend(_trial(trial) for trial in sorted(outcome.get("trials", []), key=lambda one: -one["val_accuracy"]))
    if outcome.get("importance"):
        shares = ", ".join(f"{key} {share:.0%}" for key, share in outcome["importance"].items())
        rows.append(("what it depended on", shares))
    if outcome.get("note"):
        rows.append(("note", outcome["note"]))
    for name, value in outcome.get("metrics", {}).items():
        if name != "test_top5" or outcome.get("data", {}).get("classes", 6) > 5:  # of five all are among five
            rows.append((name.replace("_", " "), _figure(name, value)))
    if outcome["pipeline"] == "monitoring":
        rows.append(("requests", outcome["window"]["count"]))
    if outcome.get("predictions"):
        rows.append(("predictions", outcome["predictions"]))
    if outcome.get("endpoint"):
        rows.append(("endpoint", f"{outcome['endpoint']}/predict"))
        rows.append(("web page", f"{outcome['endpoint']}/ui"))
    if outcome.get("shadow"):
        shadow = outcome["shadow"]
        asked = f"version {shadow['model']['version']} is asked {shadow['share']:.0%} of the same, heard by nobody"
        rows.append(("shadow", asked if shadow["running"] else f"{asked}, but does not run: {shadow['reason']}"))
    if outcome.get("idle"):
        start = f"python run.py deployment start --name {outcome['model']['name']}"
        rows.append(("endpoint", f"none runs: `{start}` serves the model in production again"))
    if outcome.get("example"):
        example = outcome["example"]
        rows.append(("one picture", f"{example['picture']} → {example['label']} ({example['probability']:.0%})"))
    for name, path in outcome.get("reports", {}).items():
        rows.append((name if path.endswith((".svg", ".md")) else f"{name} report", path))
    rows.append(("dashboard", "zenml login --local"))
    rows.append(("run", f"{outcome['run_id']} on stack {outcome['stack']}"))
    return rows


def _figure(name: str, value: float) -> str:
    """Return a figure as a person would say it."""
    from imago.evaluation.remarks import magnitude

    if name.endswith("bytes"):
        return f"{value / 1e6:.1f} MB"
    return magnitude(int(value)) if name in {"macs", "parameters"} else f"{value:.4g}"


_VERDICTS = {
    "training": _training_verdict,
    "inference": _inference_verdict,
    "monitoring": _monitoring_verdict,
    "sweep": _sweep_verdict,
}
