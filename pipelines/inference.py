"""From a folder of unlabelled pictures to predictions."""

from zenml import pipeline
from zenml.enums import ExecutionMode

from imago.config import Config
from steps.load_production_model import load_production_model
from steps.predict_pictures import predict_pictures


@pipeline(name="inference", execution_mode=ExecutionMode.FAIL_FAST)
def inference_pipeline(config: Config, source_state: str) -> None:
    """Predict with the model in production."""
    model = load_production_model(config.model.name)
    predict_pictures(model, str(config.data.source), source_state, config.inference)
