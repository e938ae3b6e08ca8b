"""Whether pictures are cheaper, on the machine that predicts them, when several go through the network at once."""

import time
from collections.abc import Callable
from statistics import median

AT_ONCE = 4  # more saves no more
CHEAPER = 0.93  # of the time that they take one after the other: less of a gain may be chance
SECONDS = 0.25  # that measuring may take, about
FEWEST, MOST = 3, 12  # rounds, whose median counts


def pictures_at_once(
    predict: Callable[[list[bytes]], object], picture: bytes, *, clock: Callable[[], float] = time.thread_time
) -> int:
    """Return `AT_ONCE` where that many of an encoded picture are clearly cheaper at once, else 1.

    `predict` takes several and works in this thread. Decoding is part of it, as it is when pictures are served: the
    graph alone, called again and again, shows less of the gain. Where that takes too long to be measured in the time
    there is nothing to gain: what a batch saves comes with each call, and is little beside a large network.
    """

    def seconds(pictures: int, times: int) -> float:
        begun = clock()
        for _ in range(times):
            predict([picture] * pictures)
        return clock() - begun

    seconds(1, 1)  # warms up
    if 2 * AT_ONCE * FEWEST * seconds(1, 1) > SECONDS:
        return 1
    seconds(AT_ONCE, 1)
    ratios: list[float] = []
    begun = clock()
    while len(ratios) < FEWEST or (len(ratios) < MOST and clock() - begun < SECONDS):
        ratios.append(seconds(AT_ONCE, 1) / seconds(1, AT_ONCE))
    return AT_ONCE if median(ratios) <= CHEAPER else 1
