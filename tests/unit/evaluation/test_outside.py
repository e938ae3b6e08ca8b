from pathlib import Path

import pytest

from imago.data.synthetic import SPECIES, write_folder
from imago.errors import ConfigError, DataRefused
from imago.evaluation.outside import MOST, outside_pictures
from tests.packages import colour_dataset


def test_drawn_moths_are_of_the_species_that_the_model_does_not_know() -> None:
    few = outside_pictures(None, SPECIES[:10], image_size=32, seed=3)
    assert few.what == "drawn moths of 2 made-up species"
    assert not few.are_easy
    assert outside_pictures(None, ("a photographed moth",), image_size=32, seed=3).are_easy
    assert len(few.images) == len(set(few.images)) == MOST
    assert few == outside_pictures(None, SPECIES[:10], image_size=32, seed=3)
    assert few != outside_pictures(None, SPECIES[:10], image_size=32, seed=4)
    assert outside_pictures(None, SPECIES, image_size=32, seed=3).images == []


def test_pictures_of_a_source_are_those_of_other_classes(tmp_path: Path) -> None:
    dataset = colour_dataset(classes=("blue", "grey"), train=5, val=2, test=2)
    write_folder(dataset, tmp_path)
    (tmp_path / "train" / "grey" / "empty.png").write_bytes(b"")
    found = outside_pictures(str(tmp_path), ("blue", "red"), image_size=32, seed=0)
    grey = {dataset.image(row) for row, label in enumerate(dataset.labels) if label == "grey"}
    assert set(found.images) == grey
    assert found.what == f"pictures of {tmp_path.name}"


def test_source_without_strangers_is_refused(tmp_path: Path) -> None:
    write_folder(colour_dataset(train=2, val=0, test=0), tmp_path)
    with pytest.raises(DataRefused, match=r"evaluation\.outside: .* does not know"):
        outside_pictures(str(tmp_path), ("blue", "green", "red"), image_size=32, seed=0)
    with pytest.raises(ConfigError, match="no file or folder"):
        outside_pictures(str(tmp_path / "gone"), ("blue",), image_size=32, seed=0)
