"""Batches are made where they are clearly cheaper, as a clock of the test's own tells."""

import pytest

from imago.serving.batching import SECONDS, pictures_at_once


class Network:
    """Takes `call` seconds for each call and `each` for each picture, and what `hiccups` has for its number."""

    def __init__(self, call: float, each: float, hiccups: dict[int, float] | None = None) -> None:
        self.call, self.each, self.hiccups = call, each, hiccups or {}
        self.now, self.sizes = 0.0, list[int]()

    def __call__(self, pictures: list[bytes]) -> None:
        assert set(pictures) == {b"a picture"}
        self.now += self.call + self.each * len(pictures) + self.hiccups.get(len(self.sizes), 0.0)
        self.sizes.append(len(pictures))

    def clock(self) -> float:
        return self.now


def chosen(network: Network) -> int:
    return pictures_at_once(network, b"a picture", clock=network.clock)


def test_four_at_once_where_that_is_a_fifth_cheaper() -> None:
    assert chosen(Network(call=0.0007, each=0.0020)) == 4


@pytest.mark.parametrize("call", [0.0, 0.0001, -0.0005])
def test_one_at_a_time_where_it_is_hardly_cheaper_or_dearer(call: float) -> None:
    assert chosen(Network(call=call, each=0.0030)) == 1


def test_what_else_the_machine_does_for_a_moment_decides_nothing() -> None:
    slow = dict.fromkeys((3, 5, 6, 7), 0.02)
    assert chosen(Network(call=0.0007, each=0.0020, hiccups=slow)) == 4
    assert chosen(Network(call=0.0, each=0.0020, hiccups=slow)) == 1


def test_a_slow_network_is_not_measured_and_takes_no_memory_for_a_batch() -> None:
    network = Network(call=0.005, each=0.011)
    assert chosen(network) == 1
    assert network.sizes == [1, 1]


def test_it_takes_no_longer_than_it_may() -> None:
    network = Network(call=0.001, each=0.009)
    chosen(network)
    assert 0 < network.now < 1.6 * SECONDS
    quick = Network(call=0.0, each=1e-6)
    chosen(quick)
    assert len(quick.sizes) < 100
