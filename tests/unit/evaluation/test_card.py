"""The card of a model that was evaluated: the package's own, and what the test pictures said."""

from imago.evaluation.card import accuracy_on_tests, evaluated_card
from tests.unit.evaluation.reports import report_of


def test_the_figures_stand_with_their_intervals_after_the_package_s_card() -> None:
    right = [True] * 90 + [False, True] * 5
    card = evaluated_card("# moths\n\nwhat was known before\n", report_of(right, confidence=0.95))
    assert card.startswith("# moths\n\nwhat was known before\n\n## Test\n\n100 pictures that it had not seen")
    assert "| accuracy | 95% | 89%–98% |" in card
    assert "five likeliest" not in card  # of two classes
    assert "| macro F1 | 95% | – |" in card  # no bootstrap was asked for
    assert "| calibration error | 0.0% | – |" in card
    assert "| worst class: atlas, 50 pictures | 90% | 79%–96% |" in card


def test_where_it_is_weak_is_what_the_page_warns_of() -> None:
    card = evaluated_card("# moths", report_of([True, False] * 50, confidence=0.99))
    weak = card.partition("## Where it is weak")[2]
    assert "- Its confidence" in weak
    assert "Nothing stood out" in evaluated_card("# moths", report_of([True] * 100, confidence=0.99))


def test_what_the_endpoint_says_of_it_is_the_accuracy_with_its_interval() -> None:
    said = accuracy_on_tests(report_of([True] * 90 + [False] * 10, confidence=0.95))
    assert (said.accuracy, said.pictures) == (0.9, 100)
    assert (round(said.low, 3), round(said.high, 3)) == (0.826, 0.945)  # Wilson's
