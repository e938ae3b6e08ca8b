"""Build what is served."""

from typing import Annotated

from zenml import get_step_context, log_metadata, step

from imago.evaluation.gate import GateDecision
from imago.serving import bento
from imago.serving.package import ModelPackage
from steps.code import cached_by


@step(cache_policy=cached_by("imago.serving.bento", "imago.serving.service"))
def build_bento(model: ModelPackage, decision: GateDecision) -> Annotated[str, "bento"]:
    """Build a Bento of the promoted model and give its exact tag; an empty tag where nothing was promoted."""
    if not decision.promoted:
        return ""
    tag = bento.build_bento(model, name=model.spec.name, version=str(get_step_context().model.version))
    log_metadata({"tag": tag})
    return tag
