"""From pictures to the best configuration of a search."""

from zenml import pipeline
from zenml.enums import ExecutionMode

from imago.config import Config
from steps.compute_statistics import compute_statistics
from steps.load_data import load_data
from steps.search import search
from steps.validate_data import validate_data


@pipeline(name="sweep", execution_mode=ExecutionMode.FAIL_FAST)
def sweep_pipeline(config: Config, source_state: str, weights_state: str) -> None:
    """Load and validate as in training, then search the configured space."""
    dataset = load_data(config.data, source_state, config.seed)
    statistics = compute_statistics(dataset, config.data)
    validation = validate_data(dataset, statistics, config.data)
    search(dataset, validation, config, weights_state)
