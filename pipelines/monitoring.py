"""From what the endpoint was asked to a verdict."""

from zenml import pipeline
from zenml.enums import ExecutionMode

from imago.config import Config
from steps.detect_drift import detect_drift
from steps.load_production_model import load_production_model


@pipeline(name="monitoring", execution_mode=ExecutionMode.FAIL_FAST)
def monitoring_pipeline(config: Config) -> None:
    """Compare the endpoint's recent requests with the reference table of the model in production."""
    model = load_production_model(config.model.name)
    detect_drift(model, config.monitoring)
