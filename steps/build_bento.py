"""Build what is served."""

from typing import Annotated

from zenml import log_metadata, step

from imago.evaluation.gate import GateDecision
from imago.serving import bento
from imago.serving.package import ModelPackage
from steps.code import cached_by


@step(cache_policy=cached_by("imago.serving.bento", "imago.serving.service"))
def build_bento(model: ModelPackage, decision: GateDecision) -> Annotated[str, "bento"]:
    """Build a Bento of the promoted version and give its exact tag; an empty tag where nothing was promoted."""
    if not decision.promoted or decision.challenger_version is None:
        return ""
    tag = bento.build_bento(model, name=model.spec.name, version=decision.challenger_version)
    log_metadata({"tag": tag})
    return tag
