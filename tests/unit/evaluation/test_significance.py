import pytest

from imago.evaluation.significance import holm, mcnemar


def test_holm_stops_at_the_first_test_that_chance_explains() -> None:
    assert holm([0.04, 0.001, 0.02], 0.05) == [True, True, True]
    assert holm([0.04, 0.001, 0.03], 0.05) == [False, True, False]
    assert holm([], 0.05) == []


def test_mcnemar_is_a_coin_tossed_for_each_picture_that_only_one_is_right_about() -> None:
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(5, 5) == 1.0
    assert mcnemar(0, 6) == mcnemar(6, 0) == pytest.approx(2 * 0.5**6)
    assert mcnemar(1, 9) == pytest.approx(2 * (1 + 10) * 0.5**10)
