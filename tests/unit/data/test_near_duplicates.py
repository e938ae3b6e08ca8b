"""Pictures that show the same."""

import numpy as np
from PIL import Image

from imago.data.near_duplicates import MAX_DISTANCE, difference_hash, near_duplicate_groups, outline
from imago.data.transforms import RGB, decode
from tests.unit.data.pictures import encode, moth


def distance(left: RGB, right: RGB) -> int:
    return (int(difference_hash(left), 16) ^ int(difference_hash(right), 16)).bit_count()


def groups(*pictures: RGB) -> list[list[int]]:
    colours = np.array([picture.reshape(-1, 3).mean(axis=0) / 255 for picture in pictures])
    return near_duplicate_groups([difference_hash(picture) for picture in pictures], colours)


def test_a_hash_is_64_hexadecimal_digits_for_any_size() -> None:
    for picture in (moth(0, 0, 96), np.zeros((1, 1, 3), np.uint8), np.zeros((3, 700, 3), np.uint8)):
        assert len(bytes.fromhex(difference_hash(picture))) == 32


def test_encoding_and_scaling_change_few_bits_and_another_picture_many() -> None:
    picture = moth(0, 0, 160)
    again = decode(encode(np.asarray(Image.fromarray(picture).resize((120, 120))), quality=50))
    assert distance(picture, again) <= 20
    assert distance(picture, moth(0, 1, 160)) > 60


def test_copies_are_grouped_and_others_left_alone() -> None:
    first, second, other = moth(0, 0, 96), moth(1, 0, 96), moth(2, 0, 96)
    copy = decode(encode(first, quality=60))
    smaller = np.asarray(Image.fromarray(second).resize((64, 64)))
    assert groups(first, second, other, copy, smaller) == [[0, 3], [1, 4]]


def test_the_same_shapes_in_other_colours_are_other_pictures() -> None:
    picture = moth(0, 0, 96)
    assert groups(picture, picture[:, :, ::-1]) == []


def test_groups_are_found_among_more_pictures_than_are_compared_at_once() -> None:
    generator = np.random.default_rng(0)
    hashes = [generator.bytes(32).hex() for _ in range(1500)]
    colours = generator.random((1500, 3))
    for left, right in ((3, 1400), (700, 701)):
        hashes[right] = hashes[left]
        colours[right] = colours[left] + 0.01
    colours[5] = colours[900] + 0.2
    hashes[5] = hashes[900]
    assert near_duplicate_groups(hashes, colours) == [[3, 1400], [700, 701]]


def test_fewer_than_two_pictures_have_no_groups() -> None:
    assert near_duplicate_groups([], np.zeros((0, 3))) == []
    assert near_duplicate_groups(["0" * 64], np.zeros((1, 3))) == []


def test_a_copy_that_was_cropped_and_moved_needs_the_closer_look() -> None:
    picture, other = moth(0, 0, 200), moth(0, 1, 200)
    moved = np.asarray(Image.fromarray(picture).crop((9, 6, 200, 194)).resize((200, 200)))
    pictures = [picture, other, moved]
    hashes = [difference_hash(each) for each in pictures]
    colours = np.array([each.reshape(-1, 3).mean(axis=0) / 255 for each in pictures])
    assert distance(picture, moved) > MAX_DISTANCE
    assert near_duplicate_groups(hashes, colours) == []
    assert near_duplicate_groups(hashes, colours, [outline(each) for each in pictures]) == [[0, 2]]


def test_different_animals_of_one_species_are_not_alike() -> None:
    pictures = [moth(species, number, 96) for species in range(6) for number in range(20)]
    hashes = [difference_hash(each) for each in pictures]
    colours = np.full((len(pictures), 3), 0.5)
    assert near_duplicate_groups(hashes, colours, [outline(each) for each in pictures]) == []
