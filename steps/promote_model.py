"""Let the challenger stand for production, or not."""

from typing import Annotated

from zenml import get_step_context, log_metadata, step

from imago.config import EvaluationConfig, GateConfig
from imago.data.dataset import ImageDataset
from imago.data.validation import ValidationResult
from imago.evaluation.evaluate import evaluate
from imago.evaluation.gate import GateDecision, already_champion, decide
from imago.evaluation.report import EvaluationReport
from imago.serving.package import ModelPackage
from stack.production import keep_alias, production_version, promote, require_production
from steps.code import cached_by


@step(cache_policy=cached_by("imago.evaluation.gate", "imago.evaluation.evaluate"))
def promote_model(
    dataset: ImageDataset,
    validation: ValidationResult,
    model: ModelPackage,
    report: EvaluationReport,
    gate: GateConfig,
    evaluation: EvaluationConfig,
    seed: int,
) -> Annotated[GateDecision, "decision"]:
    """Compare with the model in production on the same test pictures, then move the stage and the registry's alias.

    The cached decision is expired by every change of production, so that it never outlives what it compared with.
    """
    context = get_step_context()
    challenger = context.model
    champion = production_version(challenger.name)
    champion_report, learned = None, frozenset[str]()
    if champion is not None:
        champion_report = champion.report()
        if champion_report.test_fingerprint != report.test_fingerprint:
            accepted = dataset.without(validation.quarantined)
            champion_report = evaluate(champion.package(), accepted, evaluation, seed, figures_only=True)
            learned = champion.learned()
    if champion is not None and champion.package().fingerprint == model.fingerprint:
        decision = already_champion(report, champion.number, gate)
    else:
        number = str(challenger.version)
        decision = decide(
            report,
            champion_report,
            gate,
            champion_version=champion.number if champion else None,
            challenger_version=number,
            learned=learned,
        )
        if decision.promoted:
            require_production(challenger.name, champion)
            promote(challenger.name, number, model, reason=decision.reason, decision=context.step_run.id)
    if not decision.promoted or (champion is not None and decision.challenger_version == champion.number):
        keep_alias(challenger.name, champion)
    log_metadata({"promoted": decision.promoted, "reason": decision.reason}, infer_model=True)
    return decision
