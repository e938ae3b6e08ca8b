"""Has a version answer the samples that its package holds, before it takes the place of another."""

import time

import httpx

from imago.config import DeployConfig
from imago.data.transforms import UnreadablePicture, open_picture
from imago.errors import DeploymentFailed, ImagoError
from imago.serving import deployment
from imago.serving.package import GoldenSample, ModelPackage
from imago.serving.settings import PROBE_HEADER


def check_sizes(package: ModelPackage, tag: str, config: DeployConfig) -> None:
    """Raise DeploymentFailed where the endpoint would refuse a sample for its size."""
    for sample in package.golden:
        data = _picture(package, sample)
        try:
            width, height = open_picture(data).size
        except UnreadablePicture:  # which the endpoint will say
            width, height = 0, 0
        for size, limit, key in (
            (len(data), config.max_upload_bytes, "deploy.max_upload_bytes"),
            (width * height, config.max_pixels, "deploy.max_pixels"),
        ):
            if size > limit:
                raise DeploymentFailed(
                    f"{tag} was not deployed: its golden sample {sample.file} has {size:,}, more than {key} allows "
                    f"({limit:,}), as other pictures of its kind will have: set {key} higher."
                )


def check_answers(package: ModelPackage, tag: str, url: str, key: str, deadline: float) -> None:
    """Raise ImagoError where the version behind the URL says it is another, or gives a sample another label.

    The deadline is one of the monotonic clock, in seconds.
    """
    headers = {PROBE_HEADER: "golden", "X-API-Key": key}
    expected = ":".join(deployment.model_of(tag).values())
    with httpx.Client(base_url=url, headers=headers, trust_env=False) as client:
        for sample in package.golden:
            response = _answer(client, sample, _picture(package, sample), deadline)
            if response.status_code != 200:
                raise ImagoError(f"golden sample {sample.file} was answered with {response.status_code}")
            try:
                body = response.json()
                said = f"{body['model']['name']}:{body['model']['version']}"
                label = body["predictions"][0]["label"]
            except (ValueError, LookupError, TypeError) as error:
                raise ImagoError(f"golden sample {sample.file} was answered with something else") from error
            if said.lower() != expected:  # a tag has no capitals
                raise ImagoError(f"it says it is {said}, not {expected}")
            if label != sample.label:
                raise ImagoError(f"golden sample {sample.file} was answered '{label}', not '{sample.label}'")


def _answer(client: httpx.Client, sample: GoldenSample, picture: bytes, deadline: float) -> httpx.Response:
    while True:
        left = max(deadline - time.monotonic(), 1.0)
        response = client.post("/predict", files={"image": (sample.file, picture)}, timeout=left)
        if response.status_code != 429 or time.monotonic() >= deadline:
            return response
        time.sleep(float(response.headers.get("Retry-After", 1)))  # a rate limit holds for us, too


def _picture(package: ModelPackage, sample: GoldenSample) -> bytes:
    return (package.path / "golden" / sample.file).read_bytes()
