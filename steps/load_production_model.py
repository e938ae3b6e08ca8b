"""Find the model that stands for production."""

from typing import Annotated

from zenml import step

from imago.errors import ConfigError
from imago.serving.package import ModelPackage
from materializers.model_package import ModelPackageMaterializer
from stack.production import production_version, production_versions


@step(enable_cache=False, output_materializers=ModelPackageMaterializer)
def load_production_model(name: str) -> Annotated[ModelPackage, "production_model"]:
    """Give the package of the model in production. Raises ConfigError where nothing was promoted yet."""
    version = production_version(name)
    if version is None:
        others = [other.name for other in production_versions()]
        way = f"name one that is with `--set model.name={others[0]}`" if others else "train one first"
        known = f" (in production: {', '.join(others)})" if others else ""
        raise ConfigError(f"No version of model '{name}' is in production yet{known}: {way}.")
    return version.package()
