"""Say whether the endpoint is asked what the model was trained for."""

from typing import Annotated

from zenml import log_metadata, step

from imago import home
from imago.config import MonitoringConfig
from imago.monitoring.alerts import alert
from imago.monitoring.drift import DriftReport, detect
from imago.serving.package import ModelPackage
from materializers.drift_report import DriftReportMaterializer
from stack.alerter import sinks
from stack.production import production_version


@step(enable_cache=False, output_materializers=DriftReportMaterializer)
def detect_drift(model: ModelPackage, monitoring: MonitoringConfig) -> Annotated[DriftReport, "drift"]:
    """Compare the prediction store's window with the model's reference table, and alert where it drifted."""
    to = sinks()
    production = production_version(model.spec.name)
    version = production.number if production else None
    report = detect(model, home.home() / "predictions.sqlite", monitoring, version=version)
    log_metadata({"verdict": report.verdict})
    alert(report, to)
    return report
