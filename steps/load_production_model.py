"""Find the model that stands for production."""

from typing import Annotated

from zenml import step

from imago.errors import ConfigError
from imago.serving.package import ModelPackage
from materializers.model_package import ModelPackageMaterializer
from stack.production import production_version


@step(enable_cache=False, output_materializers=ModelPackageMaterializer)
def load_production_model(name: str) -> Annotated[ModelPackage, "production_model"]:
    """Give the package of the model in production. Raises ConfigError where nothing was promoted yet."""
    version = production_version(name)
    if version is None:
        raise ConfigError(
            f"No version of model '{name}' is in production yet: run `python run.py --pipeline training` first, "
            "or name another with `--set model.name=NAME`."
        )
    return version.package()
