"""Which client an address is: an IPv6 client has a whole network of addresses, an IPv4 client one in two spellings."""

import ipaddress
from collections.abc import Sequence

NETWORK_BITS = 64  # what a client of IPv6 is given, at least; each of its devices takes addresses in it as it likes
_MAPPED_BITS = 96


def plain(host: str) -> str:
    """Return a host, and `192.0.2.1` for the `::ffff:192.0.2.1` that a socket for both kinds of addresses calls it."""
    mapped = ipv6.ipv4_mapped if (ipv6 := _ipv6(host)) else None
    return str(mapped) if mapped else host


def client(host: str) -> str:
    """Return by what a client is counted: its address, in IPv6 its network, or else the host as it is."""
    ipv6 = _ipv6(plain(host))
    return str(ipaddress.IPv6Network((int(ipv6), NETWORK_BITS), strict=False)) if ipv6 else plain(host)


def in_both_spellings(networks: Sequence[str]) -> list[str]:
    """Return addresses and networks, and those of IPv4 among them also as a socket for both kinds calls them."""
    parsed = [ipaddress.ip_network(network) for network in networks]
    ipv4 = [network for network in parsed if isinstance(network, ipaddress.IPv4Network)]
    return [*networks, *(f"::ffff:{one.network_address}/{_MAPPED_BITS + one.prefixlen}" for one in ipv4)]


def _ipv6(host: str) -> ipaddress.IPv6Address | None:
    if ":" not in host:
        return None
    try:
        return ipaddress.IPv6Address(host)
    except ValueError:
        return None
