"""The model in production, for commands that need no endpoint."""

from imago.errors import ConfigError, did_you_mean
from imago.serving.package import ModelPackage


def production_package(name: str | None = None) -> tuple[ModelPackage, str]:
    """Return the package and the number of the version in production of `name`, or of the only model that has one.

    Raises ConfigError where there is none, or where there are several and none is named.
    """
    from stack.production import production_version, production_versions

    if name is not None:
        version = production_version(name)
        versions = [version] if version else []
    else:
        versions = production_versions()
    if not versions:
        known = [version.name for version in production_versions()] if name else []
        if known:
            there = f"There are {', '.join(known)}.{did_you_mean(str(name), known)}"
            raise ConfigError(f"No version of model '{name}' is in production. {there}")
        what = f"version of model '{name}'" if name else "model"
        raise ConfigError(f"No {what} is in production: run `python run.py --pipeline training` first.")
    if len(versions) > 1:
        names = ", ".join(version.name for version in versions)
        raise ConfigError(f"Several models are in production: say which with --model ({names}).")
    return versions[0].package(), versions[0].number
