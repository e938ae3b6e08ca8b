"""Which client an address is, alone and over HTTP."""

import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from imago.serving.client_address import client, in_both_spellings, plain
from imago.serving.entrance import Entrance
from imago.serving.metrics import Metrics
from imago.serving.settings import ServingSettings
from imago.serving.supervisor import listen
from tests.endpoints import over_sockets


@pytest.mark.parametrize(
    ("host", "said", "counted"),
    [
        ("192.0.2.1", "192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1", "192.0.2.1"),
        ("::ffff:c000:201", "192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2::1", "2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("2001:DB8:1:2:ffff:ffff:ffff:ffff", "2001:DB8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::", "2001:db8:1:3::", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::1%eth0", "fe80::/64"),
        ("::1", "::1", "::/64"),
        ("testclient", "testclient", "testclient"),
        ("unknown:1:2", "unknown:1:2", "unknown:1:2"),
        ("1.2.3", "1.2.3", "1.2.3"),
        ("", "", ""),
    ],
)
def test_a_client_is_its_address_in_ipv4_and_its_network_in_ipv6(host: str, said: str, counted: str) -> None:
    assert (plain(host), client(host)) == (said, counted)


def test_networks_of_ipv4_are_spelled_in_both_ways() -> None:
    given = ["10.0.0.0/24", "192.0.2.1", "fd00::/8", "0.0.0.0/0"]
    assert in_both_spellings(given) == [*given, "::ffff:10.0.0.0/120", "::ffff:192.0.2.1/128", "::ffff:0.0.0.0/96"]
    assert in_both_spellings([]) == []


def who(request: Request) -> PlainTextResponse:
    return PlainTextResponse(request.scope["imago.client"])


def entrance(**options: Any) -> Entrance:
    settings = ServingSettings(rate_limit=0.001, **options)
    inside = Starlette(routes=[Route("/", who)])
    return Entrance(inside, settings, Metrics(CollectorRegistry()), open_paths=frozenset())


def status_of(app: Entrance, address: str, **headers: str) -> int:
    return TestClient(app, client=(address, 1)).get("/", headers=headers).status_code


def test_a_client_of_ipv6_has_one_rate_for_all_its_addresses() -> None:
    app = entrance()
    assert status_of(app, "2001:db8:1:2::1") == 200
    assert [status_of(app, f"2001:db8:1:2:{number:x}::{number}") for number in range(1, 50)] == [429] * 49
    assert status_of(app, "2001:db8:1:3::1") == 200


def test_trying_keys_is_counted_by_the_network_as_well() -> None:
    app = entrance(api_key="open sesame")
    answers = [status_of(app, f"2001:db8::{number}", **{"X-API-Key": f"{number}"}) for number in range(1, 4)]
    assert answers == [401, 429, 429]


@pytest.fixture
def both() -> Iterator[socket.socket]:
    """A socket that listens for both kinds of addresses, as a supervisor on `::` has it."""
    try:
        door = listen("::", 0)
    except OSError:
        pytest.skip("this machine has no IPv6")
    with door:
        if door.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
            pytest.skip("this machine keeps IPv4 and IPv6 apart")
        yield door


def asked(url: str, forwarded: str = "") -> tuple[int, str]:
    headers = {"X-Forwarded-For": forwarded} if forwarded else {}
    answer = httpx.get(url, headers=headers, trust_env=False)
    return answer.status_code, answer.text if answer.is_success else answer.json()["error"]["code"]


def test_behind_a_proxy_on_a_socket_of_both_kinds_each_client_has_its_own_rate(both: socket.socket) -> None:
    with over_sockets(entrance(trusted_proxies=("127.0.0.0/8", "::1")), both) as url:
        over = (429, "too_many_requests")
        assert asked(url, "192.0.2.1") == (200, "address 192.0.2.1")
        assert asked(url, "::ffff:192.0.2.1") == over
        assert asked(url, "198.51.100.7, 192.0.2.1, ::ffff:127.0.0.3") == over
        assert asked(url, "2001:db8::1") == (200, "address 2001:db8::1")
        assert asked(url, "2001:db8::2") == over


def test_a_peer_of_ipv4_on_a_socket_of_both_kinds_is_named_and_counted_as_such(both: socket.socket) -> None:
    with over_sockets(entrance(trusted_proxies=("192.0.2.9",)), both) as url:
        assert asked(url) == (200, "address 127.0.0.1")
        assert asked(url, "192.0.2.1") == (429, "too_many_requests")  # it is no proxy
