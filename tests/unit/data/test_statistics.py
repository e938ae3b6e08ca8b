"""Every picture measured once."""

import io

import numpy as np
import pytest
from PIL import Image

from imago.data.features import picture_features
from imago.data.statistics import COLUMNS, PictureTable, compute_statistics
from imago.data.transforms import decode
from tests.pictures import png_that_claims
from tests.unit.data.flock import GOOD, bytes_of, flock
from tests.unit.data.pictures import encode, moth


def row(table: PictureTable, name: str) -> dict[str, object]:
    [found] = table.frame[table.frame["id"] == name].to_dict("records")
    return found


def test_the_table_has_one_row_a_picture_in_the_order_of_the_data_set() -> None:
    dataset = flock()
    table = compute_statistics(dataset)
    assert list(table.frame.columns) == list(COLUMNS)
    assert list(table.frame["id"]) == dataset.ids
    assert list(table.frame["sha256"]) == dataset.digests
    assert len(table) == len(table.readable) == len(GOOD)


def test_a_picture_is_measured_as_at_the_endpoint() -> None:
    measured = row(compute_statistics(flock()), "test/luna/1.jpg")
    data = bytes_of("test/luna/1.jpg")
    assert measured["bytes"] == len(data)
    assert (measured["format"], measured["extension"], measured["mode"]) == ("JPEG", ".jpg", "RGB")
    assert (measured["width"], measured["height"], measured["aspect"]) == (64, 64, 1.0)
    for name, value in picture_features(decode(data)).items():
        assert measured[name] == value
    assert measured["error"] is None


@pytest.mark.parametrize(
    ("data", "code", "told"),
    [
        (b"these are words, not a picture", "not_a_picture", "JPEG"),
        (b"", "missing", "missing"),
        (png_that_claims(60_000, 60_000), "too_many_pixels", "50,000,000"),
        (png_that_claims(8_000, 7_000), "too_many_pixels", "8000×7000"),
        (bytes_of("train/io/0.jpg")[:-300], "undecodable", "Premature end"),
    ],
    ids=["text", "missing", "huge", "large", "truncated"],
)
def test_what_cannot_be_read_has_its_reason_and_no_measures(data: bytes, code: str, told: str) -> None:
    table = compute_statistics(flock(("train/io/bad.jpg", data, "io", "train")))
    bad = row(table, "train/io/bad.jpg")
    assert bad["error"] == code
    assert told in str(bad["error_message"])
    assert bad["bytes"] == len(data)
    assert np.isnan(bad["brightness"])
    assert len(table.readable) == len(GOOD)


def test_a_truncated_picture_passes_a_header_check_but_not_ours() -> None:
    cut = bytes_of("train/io/0.jpg")[:-300]
    Image.open(io.BytesIO(cut)).verify()
    table = compute_statistics(flock(("train/io/cut.jpg", cut, "io", "train")))
    assert row(table, "train/io/cut.jpg")["error"] == "undecodable"


def test_a_limit_of_pixels_holds_before_decoding() -> None:
    table = compute_statistics(flock(), max_pixels=1000)
    assert set(table.frame["error"]) == {"too_many_pixels"}
    assert len(table.readable) == 0


def test_the_format_is_the_files_and_the_extension_the_names() -> None:
    png = encode(moth(0, 0, 40), "PNG")
    measured = row(compute_statistics(flock(("train/io/x.JPG", png, "io", "train"))), "train/io/x.JPG")
    assert (measured["format"], measured["extension"]) == ("PNG", ".jpg")


def test_sizes_are_upright() -> None:
    image = Image.fromarray(moth(0, 0, 64)[:40])
    exif = image.getexif()
    exif[0x0112] = 6  # turned by a quarter
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", exif=exif)
    measured = row(compute_statistics(flock(("train/io/x.jpg", buffer.getvalue(), "io", "train"))), "train/io/x.jpg")
    assert (measured["width"], measured["height"]) == (40, 64)


def test_without_leaves_out_ids() -> None:
    table = compute_statistics(flock())
    fewer = table.without({"train/io/0.jpg", "not/there.jpg"})
    assert len(fewer) == len(table) - 1
    assert list(fewer.frame.index) == list(range(len(fewer)))
