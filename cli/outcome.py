"""From a finished run to the one object that `--json` prints and the summary shows."""

from pathlib import Path
from typing import Any

from zenml.client import Client
from zenml.enums import ExecutionStatus
from zenml.models import PipelineRunResponse

from cli.pipeline import BASE
from imago import home
from imago.config import Config
from imago.evaluation.card import evaluated_card
from imago.evaluation.page import with_verdict
from imago.serving import shelf
from imago.serving.card import kept
from imago.serving.package import ModelPackage, ModelSpec
from imago.serving.rollout import Deployment


def collect(pipeline: str, run: PipelineRunResponse, config: Config) -> dict[str, Any]:
    """Read the run's artifacts, write its reports, and see that what it promoted is what is served.

    Steps that came from the cache did not serve anything this time, so a promoted model that is not being served is
    deployed here. Raises DeploymentFailed.
    """
    outcome = BASE | {
        "pipeline": pipeline,
        "status": "completed",
        "run_id": str(run.id),
        "stack": Client().active_stack_model.name,
    }
    collectors = {"training": _training, "inference": _inference, "monitoring": _monitoring, "sweep": _sweep}
    return outcome | collectors[pipeline](run, config)


def _training(run: PipelineRunResponse, config: Config) -> dict[str, Any]:
    from stack.deploy import ensure_deployed, shadow_challenger
    from stack.production import production_version

    model = _artifact(run, "train_model", "model")
    report, decision = _artifact(run, "evaluate_model", "evaluation"), _artifact(run, "promote_model", "decision")
    validation, dataset = _artifact(run, "validate_data", "validation"), run.steps["load_data"].outputs["dataset"][0]
    bento = _artifact(run, "build_bento", "bento")
    production = production_version(config.model.name)
    in_production = production is not None and production.package_id == run.steps["train_model"].outputs["model"][0].id
    version = production.number if production is not None and in_production else decision.challenger_version
    served, by = None, f"training run {run.id}"
    if bento and config.deploy.enabled and in_production:
        served = ensure_deployed(
            bento, config.deploy, champion=decision.champion_version, by=by, reason=decision.reason
        )
    elif not in_production and production is not None:  # the champion goes on serving
        if config.deploy.enabled and not _ran(run, "deploy_model"):
            shadow_challenger(config.model.name, decision, config.deploy, by=by)
        champion = Deployment(config.model.name).status()
        served = champion if champion.running else None
    cached = all(step.status == ExecutionStatus.CACHED for step in run.steps.values())
    if cached:
        _forget_copy(run)
    return {
        "model": {
            "name": config.model.name,
            "version": version,
            "stage": "production" if in_production else None,
            "architecture": config.model.architecture,
            "weights": config.model.weights,
        },
        "metrics": report.figures(),
        "promoted": decision.promoted,
        "reason": decision.reason,
        "endpoint": served.endpoint if served else None,
        "shadow": served.shadow.model_dump(mode="json") if served and served.shadow else None,
        "idle": config.deploy.enabled and production is not None and served is None,
        "example": _example(production.package()) if served and production else None,
        "data": {
            "origin": dataset.run_metadata.get("origin"),
            "found": validation.found,
            "quarantined": len(validation.quarantined),
            "classes": len(report.classes),
        },
        "training": {"epochs": config.training.epochs},
        "cached": cached,
        "reports": {
            "data": _write("data.html", validation.page),
            "evaluation": _write("evaluation.html", with_verdict(report.html, decision)),
            "card": _write("MODEL_CARD.md", evaluated_card(model.card, report)),
            **_curves(model.spec, version or str(run.id)[:8]),
        },
    }


def _curves(spec: ModelSpec, version: str) -> dict[str, str]:
    from imago.figures import draw_curves

    if not spec.history:  # trained before it was kept
        return {}
    best = int(spec.metrics["best_epoch"])
    title = f"{spec.name} version {version}, {spec.architecture}"
    drawn = draw_curves(spec.history, best, title=title, subtitle=f"Kept: {kept(spec.metrics)}")
    return {"curves": _write(f"figures/{spec.name}-{version}-curves.svg", drawn)}


def _ran(run: PipelineRunResponse, step: str) -> bool:
    """Tell whether a step ran this time: it is in this pipeline, and did not come from the cache."""
    return step in run.steps and run.steps[step].status != ExecutionStatus.CACHED


def _forget_copy(run: PipelineRunResponse) -> None:
    """Take back the version that ZenML made for a run which came wholly from the cache: it is a copy of another."""
    if run.model_version is not None and run.model_version.stage is None:
        Client().delete_model_version(run.model_version.id)


def _example(package: ModelPackage) -> dict[str, Any]:
    """Return what the endpoint says of a picture that the model has not learned from: its deployment has shown so."""
    sample = package.golden[0]
    return {"picture": f"a test picture ({sample.file})", "label": sample.label, "probability": sample.probability}


def _inference(run: PipelineRunResponse, config: Config) -> dict[str, Any]:
    predictions = _artifact(run, "predict_pictures", "predictions")
    path = Path(config.inference.output)
    path = path if path.is_absolute() else home.reports() / path
    predictions.write(path)
    return {
        "model": _production_model(config),
        "predictions": str(path),
        "count": len(predictions),
        "failed": predictions.failed,
        "reports": {"predictions": _write("predictions.html", predictions.page)},
    }


def _monitoring(run: PipelineRunResponse, config: Config) -> dict[str, Any]:
    report, model = _artifact(run, "detect_drift", "drift"), _production_model(config)
    if model["version"]:
        shelf.renew(model["name"], model["version"], "drift.html", report.page)
    return {
        "model": model,
        **report.to_json(),
        "reports": {"drift": _write("drift.html", report.page)},
    }


def _sweep(run: PipelineRunResponse, config: Config) -> dict[str, Any]:
    result = _artifact(run, "search", "sweep")
    return {
        "model": {"name": config.model.name, "version": None, "stage": None},
        "trials": [trial.model_dump() for trial in result.trials],
        "best": result.best.values,
        "importance": result.importance,
        "note": result.note,
        "metrics": {"val_accuracy": result.best.val_accuracy},
        "reports": {"configuration": _write("best.yaml", result.configuration), **_searched(result, run, config)},
    }


def _searched(result: Any, run: PipelineRunResponse, config: Config) -> dict[str, str]:
    from imago.figures import draw_importance, draw_trials

    name = f"figures/{config.model.name}-sweep-{str(run.id)[:8]}"
    best = f"Best: trial {result.best.number}, {result.best.val_accuracy:.1%} of the validation pictures named rightly"
    drawn = draw_trials(result.trials, title=f"Trials of the sweep of {config.model.name}", subtitle=best)
    written = {"trials": _write(f"{name}-trials.svg", drawn)}
    if result.importance:
        complete = sum(trial.state == "complete" for trial in result.trials)
        told = f"PED-ANOVA over the {complete} trials that were trained to their end"
        title = f"What the sweep of {config.model.name} depended on"
        drawn = draw_importance(result.importance, title=title, subtitle=told)
        written["importance"] = _write(f"{name}-importance.svg", drawn)
    return written


def _production_model(config: Config) -> dict[str, Any]:
    from stack.production import production_version

    version = production_version(config.model.name)
    return {"name": config.model.name, "version": version.number if version else None, "stage": "production"}


def _artifact(run: PipelineRunResponse, step: str, name: str) -> Any:
    return run.steps[step].outputs[name][0].load()


def _write(name: str, text: str) -> str:
    return str(home.write_report(name, text))
