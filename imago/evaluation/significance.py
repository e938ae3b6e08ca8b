"""Which of several tests found something, their number allowed for."""

from collections.abc import Sequence

import scipy  # loads its parts when they are used


def holm(p_values: Sequence[float], significance: float) -> list[bool]:
    """Say of each test whether it is significant, with this chance that any is that should not be.

    Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    rejected = [False] * len(p_values)
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda position: p_values[position])):
        if p_values[index] > significance / (len(p_values) - rank):
            break
        rejected[index] = True
    return rejected


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the two-sided p-value of McNemar's exact test: of the pictures that only one of two is right about.

    McNemar 1947, "Note on the sampling error of the difference between correlated proportions or percentages".
    """
    differing = only_first + only_second
    return float(scipy.stats.binomtest(only_first, differing).pvalue) if differing else 1.0
