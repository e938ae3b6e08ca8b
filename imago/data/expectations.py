"""Great Expectations, called directly: a suite of a few lines of YAML over the table of pictures."""

import logging
import re
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from imago import telemetry
from imago.config import CONFIGS, DataConfig
from imago.data.statistics import PictureTable
from imago.errors import ConfigError, did_you_mean

SUITE = CONFIGS / "expectations.yaml"


class ExpectationConfig(BaseModel):
    """One expectation of the suite, by Great Expectations' name of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: str
    kwargs: dict[str, Any] = {}
    severity: Literal["critical", "warning", "info"] = "critical"
    meta: dict[str, Any] = {}  # notes, as Great Expectations keeps them


def expect(table: PictureTable, config: DataConfig, suite: Path = SUITE) -> dict[str, Any]:
    """Run the suite over the table in an ephemeral context and return Great Expectations' own result, as JSON,
    without the ids and times that differ from run to run.

    Raises ConfigError where the suite cannot be used.
    """
    _, definition = _definition(suite)
    from great_expectations.exceptions import GreatExpectationsError

    summary = {"result_format": "SUMMARY", "partial_unexpected_count": 5}
    try:
        result = definition.run(**_run(table, config, suite), result_format=summary)
    except GreatExpectationsError as error:
        raise ConfigError(f"The expectations in {suite} cannot be used: {' '.join(str(error).split())}") from error
    answer: dict[str, Any] = result.to_json_dict()
    for row in answer["results"]:
        if not row["success"] and not row.get("result"):
            raise ConfigError(f"The expectation '{describe(row)}' in {suite} cannot be computed: {_why(row)}")
        row["expectation_config"].pop("id", None)
    return {"success": answer["success"], "statistics": answer["statistics"], "results": answer["results"]}


def write_data_docs(table: PictureTable, config: DataConfig, folder: Path, suite: Path = SUITE) -> Path:
    """Run the suite over the table and build Great Expectations' own pages; return the first of them.

    Their styles come from the internet. Raises ConfigError where the suite cannot be used, or the folder holds
    anything but such pages.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / "expectations").is_dir():
        raise ConfigError(f"{folder} holds something else: name another folder for the pages, or empty this one.")
    context, definition = _definition(suite)
    import great_expectations as gx

    backend = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(folder.resolve())}
    index = {"class_name": "DefaultSiteIndexBuilder"}
    site = {"class_name": "SiteBuilder", "site_index_builder": index, "store_backend": backend}
    context.add_data_docs_site(site_name="pictures", site_config=site)
    build = gx.checkpoint.UpdateDataDocsAction(name="pictures", site_names=["pictures"])
    checkpoint = gx.Checkpoint(name="pictures", validation_definitions=[definition], actions=[build])
    context.checkpoints.add(checkpoint).run(**_run(table, config, suite))
    return folder / "index.html"


def _definition(suite: Path) -> tuple[Any, Any]:
    """Return an ephemeral context and, in it, what validates a table of pictures by the suite."""
    telemetry.switch_off()
    expected = load_suite(suite)
    import great_expectations as gx

    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    asset = context.data_sources.add_pandas("pictures").add_dataframe_asset("pictures")
    checked = context.suites.add(gx.ExpectationSuite(name="pictures"))
    for one in expected:
        checked.add_expectation(_expectation(one, suite))
    data = asset.add_batch_definition_whole_dataframe("all")
    definition = gx.ValidationDefinition(name="pictures", data=data, suite=checked)
    return context, context.validation_definitions.add(definition)


def _run(table: PictureTable, config: DataConfig, suite: Path) -> dict[str, Any]:
    frame = table.frame.copy(deep=False)
    frame["pixels"] = frame["width"] * frame["height"]
    expected = load_suite(suite)
    if not any(one.type.startswith("expect_table_column") for one in expected):  # for what it is not asked of is copied
        words = set(re.findall(r"\w+", repr([one.kwargs for one in expected])))
        frame = frame[[name for name in frame if name in words]]
    return {"batch_parameters": {"dataframe": frame}, "expectation_parameters": {"max_pixels": config.max_pixels}}


def load_suite(path: Path) -> list[ExpectationConfig]:
    """Read the suite. Raises ConfigError where it is not a list of `type`, `kwargs` and `severity`."""
    try:
        rows = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(rows, list):
            raise ConfigError(f"The expectations in {path} are not a list.")
        return [ExpectationConfig.model_validate(row) for row in rows]
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"The expectations in {path} cannot be read: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{key}: {first['msg']}, in {path}.") from error


def failures(result: dict[str, Any], severity: Literal["critical", "warning", "info"]) -> list[str]:
    """Return a sentence for each expectation of this severity that the pictures did not meet."""
    return [
        describe(row)
        for row in result["results"]
        if not row["success"] and row["expectation_config"].get("severity", "critical") == severity
    ]


def describe(row: dict[str, Any]) -> str:
    """Say one expectation and its outcome in a sentence."""
    config, outcome = row["expectation_config"], row.get("result") or {}
    kwargs = {name: value for name, value in config["kwargs"].items() if name not in {"batch_id", "column"}}
    limits = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in sorted(kwargs.items()))
    what = config["type"].removeprefix("expect_").removeprefix("column_").replace("_", " ")
    told = f"{config['kwargs'].get('column', 'the table')}: {what}" + (f" ({limits})" if limits else "")
    if "element_count" in outcome and "unexpected_count" in outcome:
        return f"{told}; {outcome['unexpected_count']:,} of {outcome['element_count']:,} are not"
    if outcome.get("observed_value") is not None:
        return f"{told}; it is {outcome['observed_value']}"
    return told


def _why(row: dict[str, Any]) -> str:
    info = row.get("exception_info") or {}
    messages = [one.get("exception_message") for one in (info, *info.values()) if isinstance(one, dict)]
    return next((" ".join(message.split()) for message in messages if message), "the column is unknown.")


def _expectation(config: ExpectationConfig, suite: Path) -> Any:
    from great_expectations.exceptions import ExpectationNotFoundError
    from great_expectations.expectations import registry

    try:
        build = registry.get_expectation_impl(config.type)
    except ExpectationNotFoundError as error:
        known = registry.list_registered_expectation_implementations()
        raise ConfigError(
            f"Unknown expectation '{config.type}' in {suite}.{did_you_mean(config.type, known)}"
        ) from error
    try:
        return build(**config.kwargs, severity=config.severity, meta=config.meta or None)
    except (TypeError, ValueError) as error:
        told = " ".join(str(error).split())
        raise ConfigError(f"Expectation '{config.type}' in {suite} cannot be used: {told}") from error
