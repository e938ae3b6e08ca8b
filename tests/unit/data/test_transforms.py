"""Reading pictures: every mode becomes RGB in one way, and limits hold before anything is decoded."""

import contextlib
import io
from typing import Any

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from imago.data.transforms import (
    Preprocessing,
    UnreadablePicture,
    decode,
    normalise,
    preprocess,
    read_picture,
    resize_to_square,
)
from tests.pictures import png_that_claims


def _encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def _noise(side: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8))


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA", "1", "I;16", "CMYK"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    image = Image.new("RGB", (9, 7), (200, 200, 200))
    image = Image.fromarray(np.full((7, 9), 200 * 257, np.uint16)) if mode == "I;16" else image.convert(mode)
    picture = decode(_encoded(image, "JPEG" if mode == "CMYK" else "PNG"))
    assert picture.shape == (7, 9, 3)
    assert picture.dtype == np.uint8
    if mode != "1":
        assert abs(int(picture.mean()) - 200) <= 3


def test_transparency_is_laid_over_white() -> None:
    assert decode(_encoded(Image.new("RGBA", (4, 4), (0, 0, 0, 0)))).min() == 255


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_once(form: str, orientation: int) -> None:
    ramp = np.linspace(0, 200, 48)[:, None] + np.linspace(0, 55, 32)
    stored = Image.fromarray(ramp.astype(np.uint8)).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = orientation
    levels = np.asarray(stored)
    upright = {
        1: levels,
        2: levels[:, ::-1],
        3: levels[::-1, ::-1],
        4: levels[::-1],
        5: levels.transpose(1, 0, 2),
        6: np.rot90(levels, -1),
        7: levels[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(levels),
    }[orientation]
    options = {"lossless": True} if form == "WEBP" else {}
    picture = decode(_encoded(stored, form, exif=exif, **options))
    assert picture.shape == upright.shape
    assert np.abs(picture.astype(int) - upright).max() <= 8


def test_an_orientation_behind_other_segments_of_a_jpeg_is_found() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    plain = _encoded(Image.new("RGB", (32, 48)), "JPEG")
    turned = _encoded(Image.new("RGB", (32, 48)), "JPEG", exif=exif)
    comment = b"\xff\xda" * 9000  # which would begin the pixels, were it no comment
    behind = turned[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2) + comment + turned[2:]
    for content in (turned, behind, turned[:2] + b"\xff" + turned[2:]):  # the last with a byte that fills up
        assert decode(content).shape == (32, 48, 3)
    assert decode(plain).shape == (48, 32, 3)


@pytest.mark.parametrize(("top", "brightest"), [(255, 0), (4095, 15), (65535, 255)])
def test_sixteen_bits_go_from_0_to_65535_whatever_is_in_them(top: int, brightest: int) -> None:
    ramp = np.linspace(0, top, 64).astype(np.uint16).reshape(8, 8)
    picture = decode(_encoded(Image.fromarray(ramp)))
    assert picture[0, 0, 0] == 0
    assert picture.max() == brightest


def test_numbers_go_from_0_to_1_and_what_is_none_is_black() -> None:
    values = np.array([[0, 0.5, 1], [2, -1, np.nan]], dtype=np.float32)
    assert decode(_encoded(Image.fromarray(values), "TIFF"))[:, :, 0].tolist() == [[0, 128, 255], [255, 0, 0]]


def test_the_first_frame_of_an_animation_is_read() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    assert decode(_encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))[0, 0].tolist() == [255, 0, 0]


def test_too_many_pixels_are_refused_from_the_header_alone() -> None:
    with pytest.raises(UnreadablePicture) as refused:
        decode(png_that_claims(60_000, 60_000))
    assert refused.value.code == "too_many_pixels"


def test_a_truncated_jpeg_and_a_text_are_refused_each_with_its_code() -> None:
    whole = _encoded(_noise(64), "JPEG")
    with pytest.raises(UnreadablePicture) as truncated:
        decode(whole[: len(whole) // 2])
    with pytest.raises(UnreadablePicture) as text:
        decode(b"not a picture")
    assert (truncated.value.code, text.value.code) == ("undecodable", "not_a_picture")


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damage_gives_a_picture_or_a_reason_and_nothing_else(data: st.DataObject) -> None:
    form = data.draw(st.sampled_from(["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"]))
    content = bytearray(_encoded(_noise(24), form))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    with contextlib.suppress(UnreadablePicture):
        picture = decode(bytes(content[:cut]), max_pixels=100_000)
        assert picture.dtype == np.uint8
        assert picture.ndim == 3


def test_preprocessing_centres_scales_and_normalises() -> None:
    picture = np.zeros((10, 30, 3), np.uint8)
    picture[:, 10:20] = 255
    square = resize_to_square(picture, 10)
    assert square.min() == 255
    tensor = preprocess(picture, Preprocessing(image_size=10, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)))
    assert tensor.shape == (3, 10, 10)
    assert tensor.dtype == np.float32
    np.testing.assert_allclose(tensor, 1.0, atol=1e-6)


def test_normalising_gives_the_same_bits_as_the_plain_formula() -> None:
    how = Preprocessing(image_size=40, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    picture = np.asarray(_noise(40))
    mean, std = (np.asarray(values, dtype=np.float32) * np.float32(255) for values in (how.mean, how.std))
    expected = ((picture.astype(np.float32) - mean) * (np.float32(1) / std)).transpose(2, 0, 1)
    tensor = normalise(picture, how)
    assert tensor.flags.c_contiguous
    assert tensor.tobytes() == expected.tobytes()


@pytest.mark.parametrize("side", [0, 30])
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("options", [{"subsampling": 0}, {"subsampling": 1}, {"subsampling": 2}, {"progressive": True}])
@pytest.mark.parametrize("size", [(64, 64), (33, 57), (1, 9), (500, 333)])
def test_both_decoders_of_jpeg_give_the_same_pixels(
    mode: str, options: dict[str, Any], size: tuple[int, int], side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    smooth = Image.fromarray(noise).resize((size[0] // 3 + 1, size[1] // 3 + 1)).resize(size).convert(mode)
    sink = io.BytesIO()
    smooth.save(sink, "JPEG", quality=85, **options)
    fast = decode(sink.getvalue(), side=side)

    def refuse(*_: object, **__: object) -> None:
        raise ValueError("not today")

    monkeypatch.setattr(simplejpeg, "decode_jpeg", refuse)
    assert np.array_equal(fast, decode(sink.getvalue(), side=side))


def test_bytes_before_a_marker_are_strange_and_not_broken() -> None:
    whole = _encoded(_noise(64), "JPEG")
    assert np.array_equal(decode(whole[:-2] + b"\0\0\0" + whole[-2:]), decode(whole))


def test_a_picture_that_is_filled_up_with_grey_is_refused() -> None:
    whole = _encoded(_noise(64), "JPEG", quality=90)
    start = whole.index(b"\xff\xda") + 300
    with pytest.raises(UnreadablePicture, match="to its end"):
        decode(whole[:start] + b"\xff\xd9")


def test_a_png_whose_checksum_is_wrong_is_refused() -> None:
    whole = bytearray(_encoded(_noise(64)))
    whole[len(whole) // 2] ^= 1
    with pytest.raises(UnreadablePicture, match="cannot be decoded"):
        decode(bytes(whole))


def _scene(width: int, height: int) -> Image.Image:
    """Something with edges of all directions and smooth places, as photographs have."""
    x, y = np.meshgrid(np.linspace(0, 9, width), np.linspace(0, 7, height))
    waves = np.stack([np.sin(x * y), np.cos(x + y), np.sin(3 * x) * (y > 3)], axis=-1)
    return Image.fromarray(((waves + 1) * 127).astype(np.uint8))


@pytest.mark.parametrize(
    ("size", "side", "shape"),
    [
        ((1000, 800), 224, (400, 500)),
        ((1000, 800), 400, (400, 500)),
        ((1000, 800), 401, (800, 1000)),
        ((1001, 803), 200, (201, 251)),
        ((4000, 3000), 224, (375, 500)),
        ((9000, 300), 32, (38, 1125)),
        ((447, 447), 224, (447, 447)),
        ((1000, 800), 0, (800, 1000)),
    ],
)
def test_a_large_jpeg_is_decoded_by_halves_down_to_the_side(
    size: tuple[int, int], side: int, shape: tuple[int, int]
) -> None:
    content = _encoded(_scene(*size), "JPEG", quality=90)
    found = read_picture(content, side=side)
    assert found.pixels.shape == (*shape, 3)
    assert found.shape == size[::-1]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_large_jpeg_on_its_side_is_decoded_smaller_too(orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    content = _encoded(_scene(800, 600), "JPEG", quality=90, exif=exif)
    whole, found = read_picture(content), read_picture(content, side=224)
    on_its_side = orientation > 4
    assert found.shape == whole.shape == ((800, 600) if on_its_side else (600, 800))
    assert found.pixels.shape == ((400, 300, 3) if on_its_side else (300, 400, 3))
    near, wide = (resize_to_square(one.pixels, 224).astype(int) for one in (found, whole))
    assert np.abs(near - wide).mean() < 3


@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF", "BMP"])
def test_only_a_jpeg_is_decoded_smaller(form: str) -> None:
    content = _encoded(_scene(500, 400), form)
    assert read_picture(content, side=32).pixels.shape == (400, 500, 3)


def test_a_spec_of_earlier_versions_decodes_whole() -> None:
    earlier = Preprocessing.model_validate({"image_size": 224, "mean": (0, 0, 0), "std": (1, 1, 1)})
    assert (earlier.side, earlier.model_copy(update={"scaled_decoding": True}).side) == (0, 224)
