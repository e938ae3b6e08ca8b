"""How two versions on the same pictures compare."""

import tracemalloc
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imago.evaluation.significance import mcnemar
from imago.monitoring import shadow_comparison
from imago.monitoring.prediction_store import Counted, Mirrored, PredictionStore, timestamp
from imago.monitoring.shadow_comparison import (
    CLASSES,
    RECENT,
    Disagreement,
    ShadowComparison,
    compare_shadow,
    comparison,
)

LABELS = ("atlas", "luna", "cinnabar")
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
moments = st.integers(0, 30).map(lambda minutes: timestamp(NOON + timedelta(minutes=minutes)))
seconds = st.none() | st.floats(0.001, 1.0)


@st.composite
def mirrored_pictures(draw: st.DrawFn) -> Mirrored:
    failure = draw(st.sampled_from((None, None, None, "unreachable", "refused", "nonsense")))
    label, feedback = draw(st.sampled_from(LABELS)), draw(st.none() | st.sampled_from(LABELS))
    if failure:
        return Mirrored(label, draw(st.booleans()), feedback, None, False, draw(seconds), None, failure, draw(moments))
    theirs = draw(st.sampled_from(LABELS))
    answers = draw(st.booleans()), draw(st.booleans())
    return Mirrored(label, answers[0], feedback, theirs, answers[1], draw(seconds), draw(seconds), None,
                    draw(moments))  # fmt: skip


pictures = st.lists(mirrored_pictures(), max_size=40)


def of(
    label: str, theirs: str | None, feedback: str | None = None, failure: str | None = None, *, minute: int = 0
) -> Mirrored:
    moment = timestamp(NOON + timedelta(minutes=minute))
    return Mirrored(label, False, feedback, theirs, False, 0.010, 0.030 if theirs else None, failure, moment)


def told(answers: str) -> list[Mirrored]:
    """What was asked minute by minute: a dot is an answer that agrees, anything else is none."""
    return [
        of("luna", "luna", minute=minute) if said == "." else of("luna", None, failure="unreachable", minute=minute)
        for minute, said in enumerate(answers)
    ]


def compare(asked: list[Mirrored]) -> ShadowComparison:
    """Compare pictures in any order, each counted by itself."""
    counted = [
        Counted(one.label, one.rejected, _is(one.label, one.feedback), one.shadow_label, one.shadow_rejected,
                _is(one.shadow_label, one.feedback), one.failure, 1, one.time)
        for one in asked
    ]  # fmt: skip
    return comparison(counted, sorted(asked, key=lambda one: (one.time, one.shadow_label is None), reverse=True))


def _is(label: str | None, truth: str | None) -> bool | None:
    return None if None in {label, truth} else label == truth


def keep(store: PredictionStore, asked: list[Mirrored]) -> None:
    """Keep what version 1 of moths answered and version 2 would have."""
    told = [{"prediction_id": f"{number * 7919 % 2**32:08x}", "time": one.time} for number, one in enumerate(asked)]
    store.add([
        row | {"model": "moths", "version": "1", "label": one.label, "probability": 0.9, "rejected": one.rejected,
               "feedback": one.feedback}
        for row, one in zip(told, asked, strict=True)
    ])  # fmt: skip
    store.add_shadows([
        row | {"version": "2", "label": one.shadow_label, "rejected": one.shadow_rejected if one.shadow_label else None,
               "champion_seconds": one.seconds, "seconds": one.shadow_seconds, "failure": one.failure}
        for row, one in zip(told, asked, strict=True)
    ])  # fmt: skip


@given(pictures)
@settings(max_examples=200, deadline=None)
def test_the_figures_add_up(asked: list[Mirrored]) -> None:
    found = compare(asked)
    assert found.mirrored == len(asked)
    assert found.answered + sum(found.failures.values()) == found.mirrored == found.recent
    assert found.recent_failures == found.mirrored - found.answered
    assert (found.last_failure is None) == (found.failures == {})
    assert found.agreeing <= found.answered
    differing = sum(one.differing for one in found.classes)
    assert differing == found.answered - found.agreeing  # there are fewer labels than are listed
    assert all(one.instead_pictures <= one.differing <= one.pictures <= found.answered for one in found.classes)
    assert all(one.instead != one.label for one in found.classes)
    assert [one.differing for one in found.classes] == sorted((one.differing for one in found.classes), reverse=True)
    if found.answered:
        assert found.agreement == found.agreeing / found.answered
        assert found.agreement_interval is not None
        assert found.agreement_interval.low <= found.agreement <= found.agreement_interval.high
    else:
        assert (found.agreement, found.agreement_interval, found.classes) == (None, None, ())
    assert found.p_value == mcnemar(found.only_shadow_right, found.only_champion_right)
    if found.feedback:
        assert found.accuracy is not None
        assert found.shadow_accuracy is not None
        gain = (found.shadow_accuracy - found.accuracy) * found.feedback
        assert gain == pytest.approx(found.only_shadow_right - found.only_champion_right)
    else:
        assert (found.accuracy, found.shadow_accuracy, found.p_value) == (None, None, 1.0)


@given(pictures.map(lambda asked: [one for one in asked if one.failure is None]))
@settings(max_examples=100, deadline=None)
def test_who_shadows_whom_changes_the_sides_and_nothing_else(asked: list[Mirrored]) -> None:
    there = compare(asked)
    back = compare([
        Mirrored(str(one.shadow_label), one.shadow_rejected, one.feedback, one.label, one.rejected,
                 one.shadow_seconds, one.seconds, None, one.time)
        for one in asked
    ])  # fmt: skip
    assert (there.agreeing, there.agreement_interval, there.p_value) == (
        back.agreeing,
        back.agreement_interval,
        back.p_value,
    )
    assert (there.accuracy, there.only_champion_right, there.rejected, there.seconds) == (
        back.shadow_accuracy,
        back.only_shadow_right,
        back.shadow_rejected,
        back.shadow_seconds,
    )
    mirror = {"shadow_better": "champion_better", "champion_better": "shadow_better"}
    assert back.verdict == mirror.get(there.verdict, there.verdict)


@given(pictures, st.randoms())
@settings(max_examples=50, deadline=None)
def test_the_order_does_not_matter(asked: list[Mirrored], random) -> None:  # type: ignore[no-untyped-def]
    shuffled = list(asked)
    random.shuffle(shuffled)
    assert compare(shuffled) == compare(asked)


@dataclass(frozen=True)
class Case:
    asked: list[Mirrored]
    verdict: str


@pytest.mark.parametrize(
    "case",
    [
        Case([], "nothing_mirrored"),
        Case([of("luna", "luna")] * 50, "undecided"),
        Case([of("luna", "luna", "luna")] * 500, "undecided"),
        Case([of("luna", "atlas", "atlas")] * 5, "undecided"),  # p = 0.0625
        Case([of("luna", "atlas", "atlas")] * 6, "shadow_better"),  # p = 0.03125
        Case([of("luna", "atlas", "luna")] * 6, "champion_better"),
        Case([of("luna", "atlas", "atlas")] * 99 + [of("luna", None, failure="refused")], "shadow_better"),
        Case([of("luna", "atlas", "atlas")] * 98 + [of("luna", None, failure="refused")] * 2, "fails"),
    ],
)
def test_the_verdict_is_given_by_the_exact_test_and_not_to_one_that_fails(case: Case) -> None:
    assert compare(case.asked).verdict == case.verdict


@pytest.mark.parametrize(
    ("answers", "verdict", "recent_failures"),
    [
        ("." * 300, "undecided", 0),
        ("x" * 500, "fails", 300),
        ("." * 5000 + "x" * 4, "fails", 4),  # of 5,004, and it fails now
        ("x" * 500 + "." * 296, "fails", 4),
        ("x" * 500 + "." * 297, "undecided", 3),
        ("x" * 500 + "." * 300, "undecided", 0),
        ("." * 200 + "x" * 200 + "." * 300, "undecided", 0),
        (("." * 32 + "x") * 30, "fails", 10),  # again and again
        (("." * 332 + "x") * 9, "undecided", 1),
    ],
)
def test_a_shadow_is_judged_by_whether_it_fails_now(answers: str, verdict: str, recent_failures: int) -> None:
    found = compare(told(answers)[::-1])  # in no order
    assert (found.verdict, found.recent, found.recent_failures) == (verdict, RECENT, recent_failures)
    assert found.failures == ({"unreachable": answers.count("x")} if "x" in answers else {})
    last = NOON + timedelta(minutes=answers.rfind("x"))
    assert found.last_failure == (timestamp(last) if "x" in answers else None)


def test_after_an_outage_the_answers_count_again() -> None:
    asked = told("x" * 500) + [of("luna", "atlas", "atlas", minute=minute) for minute in range(500, 800)]
    found = compare(asked)
    assert (found.verdict, found.answered, found.mirrored) == ("shadow_better", 300, 800)


def test_the_figures_of_a_small_case_are_what_they_are() -> None:
    asked = [
        *[of("luna", "luna", "luna")] * 6,
        *[of("luna", "atlas", "atlas")] * 3,
        of("luna", "cinnabar", "luna"),
        of("atlas", "luna"),
        of("atlas", None, failure="unreachable"),
    ]
    found = compare(asked)
    assert (found.mirrored, found.answered, found.failures) == (12, 11, {"unreachable": 1})
    assert (found.agreeing, found.agreement) == (6, 6 / 11)
    assert (found.feedback, found.accuracy, found.shadow_accuracy) == (10, 0.7, 0.9)
    assert (found.only_shadow_right, found.only_champion_right, found.p_value) == (3, 1, 0.625)
    assert (found.seconds, found.shadow_seconds) == (0.010, 0.030)
    assert found.classes == (
        Disagreement(label="luna", pictures=10, differing=4, instead="atlas", instead_pictures=3),
        Disagreement(label="atlas", pictures=1, differing=1, instead="luna", instead_pictures=1),
    )
    assert ShadowComparison.model_validate_json(found.model_dump_json()) == found


def test_only_the_classes_are_listed_that_differ_most() -> None:
    asked = [of(f"moth {number}", "luna") for number in range(9) for _ in range(number + 1)]
    found = compare(asked).classes
    assert [one.label for one in found] == [f"moth {number}" for number in (8, 7, 6, 5, 4)]
    assert len(found) == CLASSES


def many(count: int, seed: int) -> list[Mirrored]:
    random, made = Random(seed), []
    for number in range(count):
        label, truth = random.choice(LABELS), random.choice((None, None, *LABELS, "a label that no model knows"))
        moment = timestamp(NOON + timedelta(seconds=number // 4))
        ours = None if random.random() < 0.1 else random.uniform(0.005, 0.02)
        if random.random() < 0.05:
            failure = random.choice(("unreachable", "refused", "nonsense"))
            made.append(Mirrored(label, False, truth, None, False, ours, None, failure, moment))
            continue
        theirs = random.choice((label, label, *LABELS))
        rejected, seconds = (random.random() < 0.2, random.random() < 0.3), random.uniform(0.01, 0.05)
        made.append(Mirrored(label, rejected[0], truth, theirs, rejected[1], ours, seconds, None, moment))
    return made


def test_what_the_store_counts_is_what_one_by_one_is_counted(tmp_path: Path) -> None:
    asked, store = many(5000, seed=1), PredictionStore(tmp_path / "predictions.sqlite")
    keep(store, asked)
    found = compare_shadow(store, "moths", "1", "2")
    assert found == compare(asked)
    assert (found.mirrored, found.recent, len(found.failures), len(found.classes)) == (5000, RECENT, 3, 3)
    assert min(found.only_champion_right, found.only_shadow_right, found.rejected, found.shadow_rejected) > 100
    assert len(store.counted("moths", "1", "2")) < 300  # rows, whatever the number of pictures
    for other in (("moths", "2", "1"), ("moths", "1", "3"), ("butterflies", "1", "2")):
        assert compare_shadow(store, *other) == compare([])


def test_a_comparison_takes_no_more_memory_for_more_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadow_comparison, "TIMED", RECENT)
    peaks = []
    for count in (1000, 20_000):
        store = PredictionStore(tmp_path / f"{count}.sqlite")
        keep(store, many(count, seed=2))
        assert compare_shadow(store, "moths", "1", "2").mirrored == count
        tracemalloc.start()
        try:
            compare_shadow(store, "moths", "1", "2")
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


def test_the_time_of_a_picture_is_the_median_of_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadow_comparison, "TIMED", 3)
    asked = [
        Mirrored("luna", False, None, "luna", False, number, 2 * number, None, timestamp(NOON + timedelta(days=number)))
        for number in (5.0, 1.0, 4.0, 2.0, 3.0)
    ]
    store = PredictionStore(tmp_path / "predictions.sqlite")
    keep(store, asked)
    found = compare_shadow(store, "moths", "1", "2")
    assert (found.seconds, found.shadow_seconds, found.mirrored) == (4.0, 8.0, 5)
