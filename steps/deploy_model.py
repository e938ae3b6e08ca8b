"""Serve the promoted model."""

from typing import Annotated

from zenml import get_step_context, step

from imago.config import DeployConfig
from imago.evaluation.gate import GateDecision
from stack.deploy import deploy, shadow_challenger
from steps.code import cached_by


@step(cache_policy=cached_by("imago.serving.rollout", "imago.serving.supervisor", "imago.serving.worker"))
def deploy_model(
    bento: str, decision: GateDecision, deploy_config: DeployConfig
) -> Annotated[dict[str, str], "deployment"]:
    """Serve the Bento through the stack's model deployer, once it has answered its golden samples.

    Gives the endpoint and the tag; nothing where no Bento was built, for a challenger that was not promoted: that one
    becomes the champion's shadow, where `deploy.shadow` asks for it. Raises DeploymentFailed, with the version before
    still serving, and standing for production again.
    """
    context = get_step_context()
    by = f"training run {context.pipeline_run.id}"
    if not bento:
        shadow_challenger(context.model.name, decision, deploy_config, by=by)
        return {}
    status = deploy(bento, deploy_config, champion=decision.champion_version, by=by, reason=decision.reason)
    return {"endpoint": status.endpoint, "bento": bento}
