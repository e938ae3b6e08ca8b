"""Build what is served."""

from typing import Annotated

from zenml import log_metadata, step

from imago.errors import as_note
from imago.evaluation.card import accuracy_on_tests, evaluated_card
from imago.evaluation.gate import GateDecision
from imago.evaluation.report import EvaluationReport
from imago.serving import bento
from imago.serving.package import ModelPackage
from stack.production import give_back
from steps.code import cached_by

PAGE = tuple(source for source in bento.endpoint_sources() if not source.endswith(".py"))


@step(cache_policy=cached_by("imago.serving.bento", "imago.serving.service", "imago.evaluation.card", reads=PAGE))
def build_bento(model: ModelPackage, report: EvaluationReport, decision: GateDecision) -> Annotated[str, "bento"]:
    """Build a Bento of the promoted version and give its exact tag; an empty tag where nothing was promoted.

    Where it cannot be built, the champion stands for production again.
    """
    if not decision.promoted or decision.challenger_version is None:
        return ""
    name, version = model.spec.name, decision.challenger_version
    try:
        card = evaluated_card(model.card, report)
        tag = bento.build_bento(model, name=name, version=version, card=card, tested=accuracy_on_tests(report))
    except BaseException as error:
        with as_note(error, f"version {version} may still stand for production, for its champion did not again"):
            give_back(name, version, decision.champion_version)
        raise
    log_metadata({"tag": tag})
    return tag
