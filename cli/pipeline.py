"""`run.py --pipeline …`: from options to a run, and from a run to its outcome."""

import json
from pathlib import Path
from typing import Any

import click

from cli import logs, summary
from imago.config import Config, load_config, with_source
from imago.errors import ConfigError, ImagoError, NotPromoted

BASE: dict[str, Any] = {"model": None, "metrics": {}, "promoted": False, "endpoint": None, "reports": {}}
"""What every pipeline's outcome has, whether it fills it or not."""


def run_pipeline(
    pipeline: str,
    *,
    as_json: bool,
    debug: bool,
    config: str | None,
    overrides: tuple[str, ...],
    data: str | None,
    stack: str | None,
    no_cache: bool,
    dry_run: bool,
    require_promotion: bool,
) -> None:
    """Run a pipeline and print its outcome. Raises ImagoError, whose exit code says what went wrong."""
    if require_promotion and pipeline != "training":
        raise ConfigError("--require-promotion is for the training pipeline: no other promotes a model.")
    settings = load_config(config or pipeline, overrides)
    if data is not None:
        settings = with_source(settings, str(Path(data).expanduser()) if data.startswith("~") else data)
    with logs.stdout_to_stderr():
        outcome = _run(pipeline, settings, stack=stack, no_cache=no_cache, dry_run=dry_run, debug=debug)
    if as_json:
        click.echo(json.dumps(outcome))
    else:
        summary.show(outcome)
    if pipeline == "inference" and 0 < outcome.get("count", 0) == outcome["failed"]:
        click.echo(
            f"error: None of the {outcome['count']} pictures could be read: see {outcome['predictions']}", err=True
        )
        click.get_current_context().exit(1)
    if require_promotion and outcome.get("promoted") is False:
        click.echo(f"error: Not promoted: {' '.join(outcome['reason'].split())}", err=True)
        click.get_current_context().exit(NotPromoted.exit_code)


def _run(
    pipeline: str, config: Config, *, stack: str | None, no_cache: bool, dry_run: bool, debug: bool
) -> dict[str, Any]:
    from imago import home
    from imago.data.remote import refuse_secrets
    from imago.data.sources import source_state

    home.require_writable()
    for source in (config.data.source, config.evaluation.outside):
        if source:
            refuse_secrets(source)
    if pipeline == "inference" and (config.data.source or "hf:").startswith("hf:"):
        raise ConfigError("The inference pipeline needs a folder of pictures: add `--data FOLDER_OR_URI`.")
    state = source_state(config.data.source) if pipeline != "monitoring" else ""
    outside = source_state(config.evaluation.outside) if pipeline == "training" else ""
    if pipeline == "sweep":
        from imago.training.space import check_space

        check_space(config)
    weights = _check_training(config, dry_run) if pipeline in {"training", "sweep"} else ""
    if pipeline == "training" and config.deploy.enabled:
        from imago.serving.rollout import Deployment

        Deployment(config.model.name).require_port(config.deploy)
    if dry_run:
        _check_stack(stack)
        told = {"pipeline": pipeline, "status": "dry-run", "run_id": None, "stack": stack}
        return BASE | told | {"config": config.model_dump(mode="json")}

    click.echo(f"{pipeline} pipeline", err=True)
    import zenml  # noqa: F401  (its logging is configured on import)

    logs.configure(debug)
    from zenml import Model
    from zenml.exceptions import RunInterruptedException, RunStoppedException

    from cli import outcome
    from stack import register, tracking

    register.ensure(stack)
    tracking.upload_waiting()
    if not register.deploys_in_step():
        config = _absolute(config)
    elif pipeline in {"training", "sweep"}:
        _check_machine(config)
    arguments: dict[str, Any] = {"config": config}
    if pipeline == "training":
        from pipelines.training import training_pipeline as wired

        arguments |= {"source_state": state, "outside_state": outside, "weights_state": weights}
        arguments["deploy"] = config.deploy.enabled and register.deploys_in_step()
    elif pipeline == "sweep":
        from pipelines.sweep import sweep_pipeline as wired

        arguments |= {"source_state": state, "weights_state": weights}
    elif pipeline == "inference":
        from pipelines.inference import inference_pipeline as wired

        arguments |= {"source_state": state}
    else:
        from pipelines.monitoring import monitoring_pipeline as wired

    logs.configure(debug)
    options: dict[str, Any] = {"settings": register.settings(config)}
    if no_cache:
        options["enable_cache"] = False
    if pipeline == "training":
        options["model"] = Model(name=config.model.name)
    try:
        run = wired.with_options(**options)(**arguments)
    except (RunInterruptedException, RunStoppedException) as error:
        raise KeyboardInterrupt from error  # a signal that met ZenML's own handler
    except Exception as error:
        from stack.failure import interrupted, reason

        if interrupted(error):
            raise KeyboardInterrupt from error
        if (found := reason(error)) is not None and found is not error:
            raise found from error
        raise
    if run is None or not run.status.is_successful:
        raise ImagoError(f"The {pipeline} pipeline failed: run it again with --debug to see where.")
    if pipeline == "training":
        trained_in = run.steps["train_model"].outputs["model"][0].producer_pipeline_run_id  # an earlier one, if cached
        home.clear_done("training", str(trained_in))  # not before: no failing export or full store costs the training
    return outcome.collect(pipeline, run, config)


def _check_stack(name: str | None) -> None:
    """Raise ConfigError where no stack has this name; ZenML is asked only for one that is not ours."""
    from stack import blueprint

    if name is not None and name not in blueprint.names():
        from stack import register

        logs.configure(debug=False)
        register.require_known(name)


def _absolute(config: Config) -> Config:
    """Name local pictures and weights by their whole paths, under which a container sees them."""

    def whole(text: str | None) -> str | None:
        return str(Path(text).expanduser().resolve()) if text and Path(text).expanduser().exists() else text

    data = config.data.model_copy(update={"source": whole(config.data.source)})
    model = config.model.model_copy(update={"weights": whole(config.model.weights)})
    evaluation = config.evaluation.model_copy(update={"outside": whole(config.evaluation.outside)})
    return config.model_copy(update={"data": data, "model": model, "evaluation": evaluation})


def _check_training(config: Config, thoroughly: bool) -> str:
    """Check what training would stumble over, before any picture is read; return the state of the weights."""
    from imago.data.sources import check_source
    from imago.training.checkpoint import weights_state
    from imago.training.classifier import check_architecture
    from imago.training.devices import check_one_node, options_of
    from imago.training.recipe import check_epochs

    check_architecture(config.model.architecture)
    check_epochs(config.training, config.model.weights)
    options_of(config.training)
    check_one_node(config.training)
    if config.training.rand_augment is not None:
        from imago.training.augment import check_rand_augment

        check_rand_augment(config.training.rand_augment)
    state = weights_state(config.model.weights)
    check_source(config.data)
    if thoroughly:
        _check_sizes(config)
    if thoroughly or config.model.weights not in {"hub", "none"}:
        _check_weights(config)
    return state


def _check_sizes(config: Config) -> None:
    from imago.training.classifier import create_classifier, try_out

    architecture, size = config.model.architecture, config.data.image_size
    network = create_classifier(architecture, "none", 2, size)
    try_out(network, architecture, size)
    if config.training.train_size is not None:
        try_out(network, architecture, config.training.train_size, "training.train_size")


def _check_machine(config: Config) -> None:
    """Check what counts only where steps run here: a container may have more devices, and reach another hub."""
    from imago.training.devices import check_devices

    check_devices(config.training)
    if config.model.weights == "hub":
        _check_weights(config)


def _check_weights(config: Config) -> None:
    from imago.training.classifier import check_weights

    check_weights(config.model.architecture, config.model.weights, config.data.image_size)
