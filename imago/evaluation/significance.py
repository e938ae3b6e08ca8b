"""Which of several tests found something, their number allowed for."""

from collections.abc import Sequence


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
