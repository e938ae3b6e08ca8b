"""By which name an endpoint is asked for: a page of another site can let its own name lead to this machine.

The browser then takes what the endpoint answers for that site's own (DNS rebinding). It tells the name in `Host`.
"""

import ipaddress
from collections.abc import Collection

from imago.serving.refusal import Refusal

LOCAL = "localhost"


def check(header: str, names: Collection[str]) -> None:
    """Raise Refusal where `Host` holds a name that is none of these; an address is no name, and is always taken.

    Without names every one is taken.
    """
    name = _name(header)
    if not names or not name or _is_address(name) or name in names or name.endswith(f".{LOCAL}"):
        return
    known = " or ".join(sorted(names))
    message = f"This endpoint is not asked for as '{name[:80]}', but as {known}: deploy.hosts lists its names."
    raise Refusal(421, "wrong_host", message)


def _name(header: str) -> str:
    """Return the host of `host:port`, of an IPv6 address what stands in its brackets."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0].rstrip(".").lower()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
