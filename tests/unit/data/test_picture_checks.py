"""Defects of single pictures are found, each in the picture that has it."""

import io

import numpy as np
import pytest
from PIL import Image, ImageFilter

from imago.config import DataConfig
from imago.data.transforms import RGB
from tests.pictures import png_that_claims
from tests.unit.data.flock import bytes_of, checked, flock
from tests.unit.data.pictures import encode, moth


def image(picture: RGB) -> Image.Image:
    return Image.fromarray(picture)


MOTH = moth(4, 7, 96)
TROUBLE: dict[str, bytes] = {
    "undecodable": b"words, not a picture",
    "extension_mismatch": encode(MOTH, "PNG"),
    "too_many_pixels": png_that_claims(60_000, 60_000),
    "too_small": encode(MOTH[:12]),
    "near_blank": encode(np.full((64, 64, 3), 120, np.uint8)),
    "dark": encode((MOTH // 12).astype(np.uint8)),
    "bright": encode(np.asarray(image(MOTH).point(lambda value: 243 + value // 21))),
    "blurred": encode(np.asarray(image(MOTH).filter(ImageFilter.GaussianBlur(6)))),
    "odd_aspect": encode(MOTH[30:60]),
}


def test_good_pictures_have_no_defect() -> None:
    results = checked(flock())
    assert {name: result.count for name, result in results.items() if result.count} == {}


@pytest.mark.parametrize("check", list(TROUBLE))
def test_each_defect_is_found_in_its_picture_and_in_no_other(check: str) -> None:
    result = checked(flock(("train/io/bad.jpg", TROUBLE[check], "io", "train")))[check]
    assert result.count == 1
    assert result.pictures == ["train/io/bad.jpg"]
    assert "train/io/bad.jpg" in result.sentence
    assert result.quarantined == (result.pictures if result.severity == "quarantine" else [])


@pytest.mark.parametrize(
    ("check", "severity"),
    [
        ("undecodable", "quarantine"),
        ("too_many_pixels", "quarantine"),
        ("too_small", "quarantine"),
        ("extension_mismatch", "warn"),
        ("blurred", "warn"),
    ],
)
def test_what_a_defect_leads_to_by_default(check: str, severity: str) -> None:
    assert checked(flock())[check].severity == severity


def test_a_missing_file_is_undecodable_and_no_copy_of_another_missing_one() -> None:
    results = checked(flock(("train/io/gone.jpg", b"", "io", "train"), ("test/luna/gone.jpg", b"", "luna", "test")))
    assert results["undecodable"].pictures == ["test/luna/gone.jpg", "train/io/gone.jpg"]
    assert results["duplicate_across_splits"].count == results["label_conflict"].count == 0


def test_a_truncated_picture_is_undecodable() -> None:
    result = checked(flock(("train/io/cut.jpg", bytes_of("train/io/0.jpg")[:-200], "io", "train")))["undecodable"]
    assert result.pictures == ["train/io/cut.jpg"]


def test_a_picture_that_claims_too_many_pixels_is_only_that() -> None:
    results = checked(flock(("train/io/huge.png", png_that_claims(60_000, 60_000), "io", "train")))
    assert [name for name, result in results.items() if result.count] == ["too_many_pixels"]


def test_an_unknown_extension_or_none_is_no_mismatch() -> None:
    more = [("train/io/x", encode(MOTH), "io", "train"), ("train/io/y.picture", encode(MOTH[:60]), "io", "train")]
    assert checked(flock(*more))["extension_mismatch"].count == 0


def test_a_picture_of_several_frames_from_a_telephone_is_a_jpeg() -> None:
    buffer = io.BytesIO()
    image(MOTH).save(buffer, "MPO", save_all=True, append_images=[image(MOTH)])
    results = checked(flock(("train/io/x.jpg", buffer.getvalue(), "io", "train")))
    assert results["extension_mismatch"].count == results["undecodable"].count == 0


def test_the_limits_follow_the_configuration() -> None:
    results = checked(flock(), DataConfig(min_side=65, max_pixels=64 * 64))
    assert results["too_small"].count == results["too_small"].count == len(flock())
    assert results["too_many_pixels"].count == 0
    assert checked(flock(), DataConfig(max_pixels=64 * 64 - 1))["too_many_pixels"].count == len(flock())


def test_a_white_drawing_on_black_is_not_underexposed() -> None:
    drawing = np.zeros((64, 64, 3), dtype=np.uint8)
    drawing[20:30, 10:40] = 255
    found = checked(flock(("train/io/drawn.jpg", encode(drawing, "PNG"), "io", "train")))
    assert found["dark"].count == 0
