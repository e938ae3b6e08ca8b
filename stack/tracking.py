"""Logs a step's figures to the stack's MLflow, and keeps them where its server cannot be reached until it can."""

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from zenml import get_step_context, log_metadata
from zenml.client import Client
from zenml.config.step_run_info import StepRunInfo
from zenml.integrations.mlflow.experiment_trackers import MLFlowExperimentTracker
from zenml.integrations.mlflow.flavors.mlflow_experiment_tracker_flavor import (
    MLFlowExperimentTrackerConfig,
    is_remote_mlflow_tracking_uri,
)

from imago import home
from imago.errors import ImagoError

logger = logging.getLogger("imago.stack")

SERVER = "imago.server"
_PATIENCE = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "4", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}  # else it tries for minutes
_TOO_MANY, _SERVER_ERROR = 429, 500
_METRICS, _PARAMS = 1000, 100  # that MLflow takes at once
_AT_WORK = 24 * 3600_000  # milliseconds
_told: set[str] = set()


class Tracking:
    """A step's run in the stack's MLflow. Nothing is logged where the stack has no MLflow.

    Where the server cannot be reached, at the start or later, the figures from then on wait in Imago's home, and
    `upload_waiting` makes them part of the same run.
    """

    def __init__(self) -> None:
        self._tracker = self._server = _tracker()
        self._info = _step_info()

    def __enter__(self) -> Self:
        self._log(self._prepare)
        return self

    def log_params(self, params: Mapping[str, Any]) -> None:
        self._log(lambda: mlflow.log_params(dict(params)))

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self._log(lambda: mlflow.log_metrics(dict(metrics), step=step))

    def log_child(
        self,
        name: str,
        params: Mapping[str, Any],
        metrics: Mapping[str, float],
        curves: Mapping[str, Mapping[int, float]],
        *,
        status: str,
    ) -> None:
        """Log a whole run below this one; a curve is a metric by step, and the status one of MLflow's."""

        def log() -> None:
            with mlflow.start_run(run_name=name, nested=True):
                mlflow.log_params(dict(params))
                mlflow.log_metrics(dict(metrics))
                for metric, curve in curves.items():
                    for step, value in curve.items():
                        mlflow.log_metric(metric, value, step=step)
                mlflow.end_run(status)

        self._log(log)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._tracker is None:
            return
        metadata = self._tracker.get_step_run_metadata(self._info)
        self._log(lambda: self._tracker.cleanup_step_run(self._info, step_failed=kind is not None))
        if self._tracker is self._server and kind is None:
            log_metadata(metadata)
        if self._tracker is not self._server:
            self._server.configure_mlflow()  # what comes after is not for the store where figures wait
            mlflow.set_tracking_uri("")

    def _prepare(self) -> None:
        if mlflow.active_run() is None:
            self._tracker.prepare_step_run(self._info)

    def _log(self, log: Callable[[], None]) -> None:
        if self._tracker is None:
            return
        try:
            with short_patience():
                log()
        except MlflowException as error:
            if not _is_down(self._tracker, error):
                raise
            self._wait()
            log()

    def _wait(self) -> None:
        """Go on in the store where figures wait."""
        address = _address(self._server)
        if address not in _told:
            _told.add(address)
            logger.warning(
                f"MLflow at {address} cannot be reached: the run goes on without it, its figures are kept in "
                f"{_waiting_file()}, and the next run uploads them once MLflow answers"
            )
        self._tracker = _waiting_tracker(self._server)
        self._tracker.configure_mlflow()
        while mlflow.active_run() is not None:
            with contextlib.suppress(MlflowException):  # it is the server's run, which this store does not know
                mlflow.end_run()
        self._prepare()
        mlflow.set_tag(SERVER, address)


def upload_waiting() -> None:
    """Upload what waits for the active stack's MLflow server, if it answers, to the runs that it belongs to.

    A run that may still be at work stays, too. What cannot be uploaded stays, and a line says why.
    """
    tracker = _tracker() if _waiting_file().exists() else None
    if tracker is None or not _is_remote(tracker):
        return
    address = _address(tracker)
    waiting = MlflowClient(_waiting_uri())
    experiments = {found.experiment_id: found.name for found in waiting.search_experiments()}
    runs = waiting.search_runs(list(experiments), order_by=["attributes.start_time ASC"])
    uploaded: dict[str, str] = {}
    try:
        tracker.configure_mlflow()
        server = MlflowClient(tracker.get_tracking_uri())
        with short_patience():
            for run in sorted(runs, key=lambda run: MLFLOW_PARENT_RUN_ID in run.data.tags):
                parent = uploaded.get(run.data.tags.get(MLFLOW_PARENT_RUN_ID, ""))
                if parent or run.data.tags.get(SERVER) == address:
                    there = _upload(run, experiments[run.info.experiment_id], parent, waiting, server)
                    uploaded[run.info.run_id] = there
    except MlflowException as error:
        if not _is_down(tracker, error):
            why = " ".join(str(error).replace(tracker.get_tracking_uri(), address).split())
            logger.warning(f"What waits in {_waiting_file()} cannot be uploaded to MLflow at {address}: {why}")
        return
    finally:
        mlflow.set_tracking_uri("")
    for run in runs:
        if run.info.run_id in uploaded and not _may_be_at_work(run):
            waiting.delete_run(run.info.run_id)
    if uploaded:
        logger.info(f"MLflow at {address} answers again: what waited of {len(uploaded)} runs is there now")


def require_server(what: str) -> None:
    """Raise ImagoError, which says `what` was not done, where the active stack's MLflow server cannot be reached."""
    tracker = _tracker()
    if tracker is None or not _is_remote(tracker):
        return
    try:
        with short_patience():
            tracker.configure_mlflow()
            MlflowClient().search_experiments(max_results=1)
    except MlflowException as error:
        if _is_down(tracker, error):
            raise ImagoError(
                f"MLflow at {_address(tracker)} cannot be reached, so {what}: run the same command again once it "
                "answers; it goes on from what is done."
            ) from error
        raise


def _upload(run: Run, experiment: str, parent: str | None, waiting: MlflowClient, server: MlflowClient) -> str:
    known = server.get_experiment_by_name(experiment)
    place = known.experiment_id if known else server.create_experiment(experiment)
    name, tags = run.info.run_name, {key: value for key, value in run.data.tags.items() if key != SERVER}
    wanted = f"tags.`mlflow.runName` = '{name}'"
    if parent:
        tags[MLFLOW_PARENT_RUN_ID] = parent
        wanted += f" and tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent}'"
    found = server.search_runs([place], wanted, max_results=1)
    there = found[0] if found else server.create_run(place, run.info.start_time, tags, name)
    metrics = [
        Metric(one.key, one.value, one.timestamp, one.step)
        for key in run.data.metrics
        for one in waiting.get_metric_history(run.info.run_id, key)
    ]
    params = [Param(key, value) for key, value in run.data.params.items()]
    for first in range(0, len(metrics), _METRICS):
        server.log_batch(there.info.run_id, metrics=metrics[first : first + _METRICS])
    for first in range(0, len(params), _PARAMS):
        server.log_batch(there.info.run_id, params=params[first : first + _PARAMS])
    if run.info.status != "RUNNING" and there.info.status == "RUNNING":
        server.set_terminated(there.info.run_id, run.info.status, run.info.end_time)
    return str(there.info.run_id)


def _may_be_at_work(run: Run) -> bool:
    return run.info.status == "RUNNING" and run.info.start_time > time.time() * 1000 - _AT_WORK


def _tracker() -> Any:
    tracker = Client().active_stack.experiment_tracker
    return tracker if isinstance(tracker, MLFlowExperimentTracker) else None


def _waiting_file() -> Path:
    return home.home() / "mlflow-waiting.db"


def _waiting_uri() -> str:
    return f"sqlite:///{_waiting_file()}"


def _waiting_tracker(server: Any) -> MLFlowExperimentTracker:
    return MLFlowExperimentTracker(
        name=server.name,
        id=server.id,
        config=MLFlowExperimentTrackerConfig(tracking_uri=_waiting_uri()),
        flavor=server.flavor,
        type=server.type,
        user=server.user,
        created=server.created,
        updated=server.updated,
    )


def _step_info() -> StepRunInfo:
    """Return what ZenML's trackers are told of a step before it begins, from within it."""
    context = get_step_context()
    run, step = context.pipeline_run, context.step_run
    return StepRunInfo(
        step_run_id=step.id,
        run_id=run.id,
        run_name=run.name,
        pipeline_step_name=step.name,
        config=step.config,
        spec=step.spec,
        pipeline=run.config,
        snapshot=run.snapshot,
        step_run=step,
        force_write_logs=lambda: None,
    )


def _is_remote(tracker: Any) -> bool:
    return is_remote_mlflow_tracking_uri(tracker.get_tracking_uri())


def _is_down(tracker: Any, error: MlflowException) -> bool:
    """Tell a server that is away, overloaded or broken from one that refuses what it is asked."""
    status = error.get_http_status_code()
    return _is_remote(tracker) and (status >= _SERVER_ERROR or status == _TOO_MANY)


def _address(tracker: Any) -> str:
    """Return where the server is, without a user's name, a password or a query."""
    parts = urlsplit(tracker.get_tracking_uri())
    if not parts.hostname:
        return str(tracker.get_tracking_uri())
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname}{port}{parts.path}".rstrip("/")


@contextlib.contextmanager
def short_patience() -> Iterator[None]:
    """Let MLflow's client give up within ten seconds for a while, where the environment does not say otherwise."""
    ours = {name: value for name, value in _PATIENCE.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            del os.environ[name]
