"""Fetches weights from the hub into its cache on this machine: whole, or not at all."""

import hashlib
import re
import time
from pathlib import Path

import httpx
import torch
from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, HTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled
from huggingface_hub.utils import tqdm

from imago.files import replacing
from imago.training.checkpoint import HUB_FILES

NO_NETWORK = (OSError, httpx.HTTPError, HTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled)
_PATIENCE = 5.0  # seconds
_PAUSES = (1.0, 2.0)  # seconds
_TRANSIENT = {429, 500, 502, 503, 504}
_BEGINNINGS = 3
_SHA256 = re.compile("[0-9a-f]{64}")
_BEGINNING = re.compile(r"-([0-9a-f]{8})[0-9a-f]?\.")  # of the SHA-256, in a file's name: torch.hub's convention


class _Download(tqdm):  # type: ignore[misc]
    """Ends a download that breaks off and begins anew for ever, for the hub's client counts only those without data."""

    begun = 1

    def update(self, n: float | None = 1) -> bool | None:
        if n is not None and n < 0:
            self.begun += 1
            if self.begun > _BEGINNINGS:
                raise OSError(f"the download broke off {_BEGINNINGS} times, and the hub does not let it go on")
        told: bool | None = super().update(n)
        return told


def fetched(hub_id: str) -> str:
    """Return a model's weights' file, from the cache or fetched into it.

    Raises one of `NO_NETWORK` where it cannot be had as the hub's checksum says it is; it is not in the cache then.
    """
    if found := cached(hub_id):
        return found
    for pause in (*_PAUSES, None):
        try:
            name = ask(hub_id)
            path = hf_hub_download(hub_id, name, tqdm_class=_Download)
            break
        except HfHubHTTPError as error:
            status = error.response.status_code
            if pause is None or status not in _TRANSIENT:
                raise OSError(f"{constants.ENDPOINT} answered {status} for {hub_id}") from error
            time.sleep(pause)
    if not _is_whole(path):
        raise OSError(f"{hub_id}/{name} came with another checksum than {constants.ENDPOINT} says it has")
    return path


def cached(hub_id: str) -> str | None:
    """Return the file in the cache: nothing is asked of the network for what is there. What is damaged is removed."""
    found = (try_to_load_from_cache(hub_id, name) for name in HUB_FILES)
    return next((path for path in found if isinstance(path, str) and _is_whole(path)), None)


def ask(hub_id: str) -> str:
    """Return what the hub's file is called, asked with a short patience before its client asks for most of a minute.

    Raises one of `NO_NETWORK`.
    """
    if constants.HF_HUB_OFFLINE:
        raise OfflineModeIsEnabled("HF_HUB_OFFLINE is set, and they are not in the local cache")
    for name in HUB_FILES:
        try:
            get_hf_file_metadata(hf_hub_url(hub_id, name), timeout=_PATIENCE)
            return name
        except HfHubHTTPError as error:
            if error.response.status_code != httpx.codes.NOT_FOUND or name == HUB_FILES[-1]:
                raise
    raise AssertionError("unreachable")


def fetched_from(url: str) -> str:
    """Return the file of weights that are elsewhere than on the hub, from torch's cache or fetched into it.

    Raises one of `NO_NETWORK` where it does not come whole, as its length and the checksum in its name tell.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(httpx.URL(url).path).name
    if path.is_file() and _is_as_named(path, path.name):
        return str(path)
    with httpx.stream("GET", url, follow_redirects=True, timeout=_PATIENCE) as response:
        response.raise_for_status()
        length = int(response.headers.get("Content-Length", 0)) or None
        bar = tqdm(total=length, unit="B", unit_scale=True, desc=path.name)  # type: ignore[no-untyped-call]
        with replacing(path) as partial:
            with partial.open("wb") as file, bar:
                for part in response.iter_raw():
                    file.write(part)
                    bar.update(len(part))
            if not _is_as_named(partial, path.name):
                raise OSError(f"{url} came with another checksum than its name says")
    return str(path)


def _is_as_named(path: Path, name: str) -> bool:
    named = _BEGINNING.search(name)
    if named is None:
        return True
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest().startswith(named[1])


def _is_whole(path: str) -> bool:
    """Hold a file to its checksum, where the cache names what it links to by it; the hub's client holds only to a size.

    Removes what is damaged.
    """
    link = Path(path)
    blob = link.parent / link.readlink() if link.is_symlink() else link
    if not _SHA256.fullmatch(blob.name):
        return True
    with blob.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() == blob.name:
            return True
    blob.unlink()
    link.unlink()
    return False
