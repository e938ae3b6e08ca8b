"""The page of a data check: the verdict first, self-contained, and safe from what file names hold."""

import re

import pytest

from imago.config import DataConfig
from imago.data.contact_sheet import class_rows, render_contact_sheet, thumbnail
from imago.data.page import size_bars
from imago.data.statistics import compute_statistics
from imago.data.validation import validate
from tests.pictures import png_that_claims
from tests.unit.data.flock import GOOD, LABELS, bytes_of, flock
from tests.unit.data.pictures import encode, moth

HOSTILE = '<script>alert("x")</script>'


@pytest.fixture(scope="module")
def page() -> str:
    dataset = flock(
        ("train/io/words.jpg", b"words", "io", "train"),
        ("train/io/gone.jpg", b"", "io", "train"),
        ("train/luna/huge.png", png_that_claims(60_000, 60_000), "luna", "train"),
        ("train/luna/leak.jpg", bytes_of("test/luna/0.jpg"), "luna", "train"),
        *((f"train/{HOSTILE}/{n}.jpg", encode(moth(6, n)), HOSTILE, "train") for n in range(2)),
    )
    return validate(dataset, compute_statistics(dataset), DataConfig()).page


def heading(page: str) -> str:
    [found] = re.findall(r"<h1>(.*?)</h1>", page, re.DOTALL)
    return re.sub(r"<[^>]+>", "", found)


def test_the_verdict_comes_first(page: str) -> None:
    assert heading(page).startswith("Refused: 1 class with fewer than 5 pictures to train on")
    good = validate(flock(), compute_statistics(flock()), DataConfig()).page
    assert heading(good) == f"Accepted: {len(GOOD)} pictures of 3 classes may be trained on"
    assert "Nothing: every check passed." in good


def test_it_asks_nothing_of_the_internet(page: str) -> None:
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(sources) > 10
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert "<link" not in page
    assert "url(" not in page
    assert "default-src 'none'" in page


def test_names_cannot_become_markup(page: str) -> None:
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_each_finding_is_shown_with_its_pictures_and_the_gravest_first(page: str) -> None:
    cards = re.findall(r'<section class="check (\w+)" id="(\w+)">(.*?)</section>', page, re.DOTALL)
    assert [(gravity, name) for gravity, name, _ in cards] == [
        ("refuse", "class_too_small"),
        ("quarantine", "undecodable"),
        ("quarantine", "too_many_pixels"),
        ("quarantine", "duplicate_across_splits"),
        ("warn", "class_missing_in_split"),
    ]
    content = {name: text for _, name, text in cards}
    assert content["duplicate_across_splits"].count("<img") == 2
    assert "1 left out" in content["duplicate_across_splits"]
    assert "no file" in content["undecodable"]
    assert "not one of JPEG" in content["undecodable"]
    assert content["undecodable"].count("<img") == 0


def test_quarantined_pictures_are_listed_with_their_reason(page: str) -> None:
    assert "duplicate_across_splits: it is &#39;test/luna/0.jpg&#39; again" in page


def test_a_thumbnail_is_small() -> None:
    assert thumbnail(encode(moth(0, 0, 400))).startswith("data:image/jpeg;base64,")
    assert len(thumbnail(encode(moth(0, 0, 400)))) < 20_000


def test_a_contact_sheet_shows_every_class_with_its_counts() -> None:
    rows = class_rows(flock(("train/io/words.jpg", b"words", "io", "train")), per_class=4)
    assert [row.label for row in rows] == sorted(LABELS)
    assert rows[0].counts == [7, 2, 2]
    assert all(len(row.thumbnails) == 4 for row in rows)
    sheet = render_contact_sheet(flock())
    assert sheet.count("<img") == 18
    assert f"{len(GOOD)} pictures of 3 classes" in sheet


def test_many_classes_get_fewer_pictures_each() -> None:
    rows = [
        (f"train/{n:03d}/{m}.jpg", bytes_of("train/io/0.jpg"), f"{n:03d}", "train")
        for n in range(120)
        for m in range(4)
    ]
    dataset = type(flock()).from_rows(*zip(*rows, strict=True), origin="a test")
    assert sum(len(row.thumbnails) for row in class_rows(dataset, per_class=8)) == 240


def test_sizes_are_counted_by_the_shorter_side_in_ranges_where_they_are_many() -> None:
    few = flock(("train/io/small.png", encode(moth(0, 1, 32)[:20], "PNG"), "io", "train"))
    assert [(bar.size, bar.count) for bar in size_bars(compute_statistics(few))] == [("20", 1), ("64", len(GOOD))]
    many = flock(*((f"train/io/{n}.png", encode(moth(0, n, 40)[:n], "PNG"), "io", "train") for n in range(20, 36)))
    bars = size_bars(compute_statistics(many))
    assert len(bars) <= 8
    assert sum(bar.count for bar in bars) == len(GOOD) + 16
    assert bars[-1].share == 1
    assert bars[0].size.startswith("20–")
