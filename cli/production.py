"""The package of the model in production, for commands that need no endpoint."""

from imago.errors import ConfigError
from imago.serving.package import ModelPackage


def production_package(name: str) -> ModelPackage:
    """Return the package of the version of `name` in production. Raises ConfigError where there is none."""
    from stack.production import production_version

    version = production_version(name)
    if version is None:
        raise ConfigError(
            f"No version of model '{name}' is in production: run `python run.py --pipeline training` first, "
            "or name another model."
        )
    return version.package()
