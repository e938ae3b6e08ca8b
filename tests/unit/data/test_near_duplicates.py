"""Pictures that show the same."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageEnhance

from imago.data.alignment import align, residual
from imago.data.features import luma_of
from imago.data.near_duplicates import Alike, near_duplicates, outline
from imago.data.neighbours import Outlines
from imago.data.transforms import RGB, decode
from tests.unit.data.pictures import encode, moth


def outlined(picture: RGB) -> npt.NDArray[np.uint8]:
    return outline(luma_of(picture).levels)


def alike(pictures: Sequence[RGB], *, turned: bool = False) -> list[Alike]:
    outlines = np.array([outlined(picture) for picture in pictures], dtype=np.uint8).reshape(-1, 28, 28)
    return near_duplicates(outlines, lambda index: pictures[index], turned=turned)


def groups(*pictures: RGB, turned: bool = False) -> list[list[int]]:
    return [one.members for one in alike(pictures, turned=turned)]


def test_an_outline_is_28_by_28_for_any_size() -> None:
    for picture in (moth(0, 0, 96), np.zeros((1, 1, 3), np.uint8), np.zeros((3, 700, 3), np.uint8)):
        assert outlined(picture).shape == (28, 28)


def test_copies_are_grouped_and_others_left_alone() -> None:
    first, second, other = moth(0, 0, 96), moth(1, 0, 96), moth(2, 0, 96)
    copy = decode(encode(first, quality=60))
    smaller = np.asarray(Image.fromarray(second).resize((64, 64)))
    assert groups(first, second, other, copy, smaller) == [[0, 3], [1, 4]]


def test_copies_are_found_among_thousands() -> None:
    rng = np.random.default_rng(0)
    pictures = [leaning(rng) for _ in range(2600)]
    for left, right in ((3, 1400), (700, 701), (900, 2599)):
        pictures[right] = decode(encode(pictures[left][6:, 6:], quality=80))
    assert groups(*pictures) == [[3, 1400], [700, 701], [900, 2599]]


def test_groups_of_copies_of_one_picture_are_one_group() -> None:
    pictures = [moth(species, number, 96) for species in range(6) for number in range(20)]
    for index in range(0, 100, 10):  # two small crops of each side by side, nearer to each other than to the whole
        whole = Image.fromarray(pictures[index])
        cut = np.asarray(whole.crop((8, 8, 90, 90)).resize((96, 96)))
        pictures += [decode(encode(pictures[index], quality=50)), decode(encode(cut, quality=80))]
        pictures.append(decode(encode(cut, quality=50)))
    expected = [[index, *range(120 + 3 * place, 123 + 3 * place)] for place, index in enumerate(range(0, 100, 10))]
    assert groups(*pictures) == expected


def test_different_small_animals_on_one_cloth_are_not_alike() -> None:
    light = np.linspace(230, 180, 160)[None, :, None] - np.linspace(0, 20, 160)[:, None, None]
    soft = np.clip(2 - 2 * np.hypot(*np.mgrid[-1:1:36j, -1:1:36j]), 0, 1)[:, :, None]
    pictures = []
    for number in range(80):
        picture = np.repeat(light, 3, axis=2).astype(np.uint8)
        spot = picture[62:98, 62:98]
        spot[:] = soft * moth(number % 8, number, 96)[30:66, 30:66] + (1 - soft) * spot
        pictures.append(picture)
    pictures.append(decode(encode(pictures[3], quality=60)))
    pictures.append(decode(encode((pictures[5] * 0.8).astype(np.uint8), quality=80)))
    assert groups(*pictures) == [[3, 80], [5, 81]]


def test_fewer_than_two_pictures_have_no_groups() -> None:
    assert alike([]) == alike([moth(0, 0)]) == []


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "cropped": lambda image: image.crop((9, 6, 200, 194)),
    "cropped at a corner": lambda image: image.crop((0, 0, 180, 180)),
    "squeezed": lambda image: image.crop((0, 14, 200, 186)),
    "cropped and squeezed": lambda image: image.crop((12, 4, 178, 196)),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.3),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.7),
    "greyer": lambda image: ImageEnhance.Color(image).enhance(0.3),
    "with more contrast": lambda image: ImageEnhance.Contrast(image).enhance(1.4),
}


@pytest.mark.parametrize("change", COPIES)
def test_a_copy_that_was_changed_is_found_by_the_closer_look(change: str) -> None:
    changed = np.asarray(COPIES[change](Image.fromarray(moth(0, 0, 200))).resize((160, 160)))
    pictures = [moth(0, 0, 200), moth(0, 1, 200), moth(1, 0, 200), decode(encode(changed, quality=80))]
    assert groups(*pictures) == [[0, 3]]


TURNS: dict[str, Callable[[RGB], RGB]] = {
    "mirrored": lambda picture: picture[:, ::-1],
    "upside down": lambda picture: picture[::-1],
    "turned": lambda picture: np.rot90(picture),
    "turned and mirrored": lambda picture: np.rot90(picture)[:, ::-1],
}


@pytest.mark.parametrize("turn", TURNS)
def test_a_copy_that_was_turned_is_found_where_that_is_asked_for(turn: str) -> None:
    generator = np.random.default_rng(1)
    pictures = [leaning(generator) for _ in range(4)]
    pictures.append(decode(encode(np.ascontiguousarray(TURNS[turn](pictures[1])), quality=80)))
    assert groups(*pictures) == []
    assert groups(*pictures, turned=True) == [[1, 4]]


def leaning(generator: np.random.Generator) -> RGB:
    """A picture that is like none of its mirror images: soft spots anywhere."""
    spots = Image.fromarray(generator.integers(0, 256, (12, 12, 3), dtype=np.uint8))
    return np.asarray(spots.resize((96, 96), Image.Resampling.BICUBIC))


def test_a_symmetric_picture_is_no_copy_of_itself() -> None:
    half = moth(0, 0, 96)[:, :48]
    pictures = [np.ascontiguousarray(np.concatenate([half, half[:, ::-1]], axis=1)), moth(1, 0, 96), moth(2, 0, 96)]
    assert groups(*pictures, turned=True) == []


def test_how_well_copies_agree_is_told() -> None:
    picture, other = moth(0, 0, 200), moth(1, 0, 200)
    again = decode(encode(picture, quality=60))
    cropped = np.asarray(Image.fromarray(other).crop((0, 0, 170, 170)).resize((200, 200)))
    saved, cut = alike([picture, other, again, cropped])
    assert (saved.members, cut.members) == ([0, 2], [1, 3])
    assert 0.9 < saved.agreement <= 1
    assert 0.6 <= cut.agreement < saved.agreement


def test_different_animals_of_one_species_are_not_alike() -> None:
    assert groups(*(moth(species, number, 96) for species in range(6) for number in range(20))) == []


def test_a_picture_lies_over_itself_and_its_parts_only() -> None:
    def luma(picture: RGB) -> npt.NDArray[np.uint8]:
        return np.asarray(Image.fromarray(picture).convert("L").resize((64, 64)))

    picture, other = moth(0, 0, 200), moth(0, 1, 200)
    left = np.stack([luma(picture)] * 4)
    right = np.stack([luma(picture), 255 - luma(picture) // 2, luma(picture[20:190, 10:180]), luma(other)])
    scores = agreement(left, right)
    assert scores[0] == pytest.approx(1, abs=1e-3)
    assert scores[1] < 0.5
    assert scores[2] > 0.9
    assert scores[3] < 0.6
    np.testing.assert_allclose(agreement(right, left), scores, atol=1e-5)
    assert agreement(left, np.zeros_like(left)).max() < 0.1


def agreement(left: Outlines, right: Outlines) -> npt.NDArray[np.float32]:
    forth, back = align(left, right)
    return np.maximum(forth.agreement, back.agreement)


def test_what_is_smooth_has_to_agree_better() -> None:
    ramp = 255 - np.abs(np.add.outer(np.arange(64), np.arange(64)) - 64).astype(np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    both = np.stack([ramp, noise])
    smooth, rough = residual(both, both, np.array([0.9, 0.9], dtype=np.float32))
    assert smooth > 0.5 > rough
