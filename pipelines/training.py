"""From pictures to a served model."""

from zenml import pipeline
from zenml.enums import ExecutionMode

from imago.config import Config
from steps.build_bento import build_bento
from steps.compute_statistics import compute_statistics
from steps.deploy_model import deploy_model
from steps.evaluate_model import evaluate_model
from steps.load_data import load_data
from steps.promote_model import promote_model
from steps.train_model import train_model
from steps.validate_data import validate_data


@pipeline(name="training", execution_mode=ExecutionMode.FAIL_FAST)
def training_pipeline(config: Config, source_state: str, outside_state: str, weights_state: str, deploy: bool) -> None:
    """Load, validate, train, evaluate, promote and deploy; `deploy` is false where steps run in containers."""
    dataset = load_data(config.data, source_state, config.seed)
    statistics = compute_statistics(dataset, config.data)
    validation = validate_data(dataset, statistics, config.data)
    model = train_model(
        dataset, validation, config.model, config.training, config.data.image_size, config.seed, weights_state
    )
    report = evaluate_model(dataset, validation, model, config.evaluation, config.seed, outside_state)
    decision = promote_model(dataset, validation, model, report, config.gate, config.evaluation, config.seed)
    bento = build_bento(model, report, decision)
    if deploy:
        deploy_model(bento, decision, config.deploy)
