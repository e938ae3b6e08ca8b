import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imago.evaluation.explain import class_activation_map, fit_within, heat_map, method_of, occlusion_map, overlay
from imago.serving.runtime import Runtime
from tests.packages import colour_of, make_package


def with_patch(height: int, width: int, top: int, left: int, side: int) -> np.ndarray:
    """A grey picture with a red square in it: red is the answer because of the square alone."""
    rgb = np.full((height, width, 3), 127, dtype=np.uint8)
    rgb[top : top + side, left : left + side] = colour_of("red")
    return rgb


@pytest.mark.parametrize("maps", [False, True])
@pytest.mark.parametrize(("height", "width"), [(64, 64), (64, 96), (90, 60)])
def test_the_map_is_hottest_where_the_answer_comes_from(tmp_path: Path, height: int, width: int, maps: bool) -> None:
    runtime = Runtime(make_package(tmp_path / "package", ("blue", "red"), sharpness=2.0, maps=maps))
    top, left = height // 2 + 4, width // 2 + 4
    heat = heat_map(runtime, with_patch(height, width, top, left, 14))
    assert heat.shape == (height, width)
    assert heat.dtype == np.float32
    assert (heat.min(), heat.max()) == (0.0, pytest.approx(1.0, abs=0.1))
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    assert top - 6 <= row <= top + 20
    assert left - 6 <= column <= left + 20
    assert heat[: height // 4, : width // 4].max() < 0.2


@pytest.mark.parametrize("maps", [False, True])
def test_beyond_the_square_that_the_model_sees_the_map_is_cold(tmp_path: Path, maps: bool) -> None:
    runtime = Runtime(make_package(tmp_path / "package", maps=maps))
    heat = heat_map(runtime, with_patch(40, 120, 10, 50, 20))
    assert heat[:, :40].max() == heat[:, 80:].max() == 0.0
    assert heat[:, 40:80].max() > 0.9


def test_hiding_nothing_that_matters_is_cold_everywhere(tmp_path: Path) -> None:
    runtime = Runtime(make_package(tmp_path / "package"))
    grey = np.full((48, 48, 3), 127, dtype=np.uint8)
    assert occlusion_map(runtime, grey).max() < 0.05


def test_a_model_with_maps_is_read_by_class_activation_and_one_without_by_occlusion(tmp_path: Path) -> None:
    rgb = with_patch(48, 48, 4, 4, 20)
    mapped = Runtime(make_package(tmp_path / "mapped", maps=True))
    assert method_of(mapped) == "class_activation"
    assert np.array_equal(heat_map(mapped, rgb), class_activation_map(mapped, rgb))
    before = Runtime(make_package(tmp_path / "before"))
    assert method_of(before) == "occlusion"
    assert np.array_equal(heat_map(before, rgb), occlusion_map(before, rgb))


class Linear:
    """A model of two classes by hand: its maps are the picture's colours, and its head is linear."""

    has_maps = True
    maps_lean = False
    weight = np.array([[2.0, -1.0, 0.5], [0.0, 1.0, 0.5]], dtype=np.float32)
    bias = np.array([3.0, -3.0], dtype=np.float32)

    def preprocess(self, image: bytes) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(image)), dtype=np.float32).transpose(2, 0, 1) / 255

    def maps(self, batch: np.ndarray) -> np.ndarray:
        return batch.reshape(*batch.shape[:2], -1)

    def head(self, means: np.ndarray) -> np.ndarray:
        return means @ self.weight.T + self.bias

    def predict_array(self, batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        raise AssertionError(f"Class activation asked for {len(batch)} predictions.")


def test_with_a_linear_head_it_is_the_map_of_class_activation() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, size=(6, 6, 3), dtype=np.uint8)
    weight = Linear.weight[0] - Linear.weight.mean(axis=0)
    expected = np.maximum(np.einsum("k,hwk->hw", weight, rgb / np.float32(255)), 0)
    assert class_activation_map(Linear(), rgb) == pytest.approx(expected / expected.max(), abs=1e-4)


def test_what_leans_to_one_side_is_set_upright() -> None:
    class Late(Linear):
        maps_lean = True

        def maps(self, batch: np.ndarray) -> np.ndarray:
            return super().maps(np.roll(batch, 1, axis=3))

    rgb = np.zeros((7, 7, 3), dtype=np.uint8)
    rgb[2:5, 3] = 255, 0, 0
    heat = class_activation_map(Late(), rgb)
    assert heat == pytest.approx(heat[:, ::-1], abs=1e-5)


def test_where_every_place_speaks_against_the_answer_the_map_is_cold() -> None:
    rgb = np.zeros((6, 6, 3), dtype=np.uint8)
    rgb[..., 1] = 200
    assert class_activation_map(Linear(), rgb).max() == 0.0


def test_overlay_leaves_cold_places_as_they_are() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, size=(30, 20, 3), dtype=np.uint8)
    heat = np.zeros((30, 20), dtype=np.float32)
    heat[:10] = 1.0
    shown = np.asarray(Image.open(io.BytesIO(overlay(rgb, heat))))
    assert np.array_equal(shown[10:], rgb[10:])
    assert np.abs(shown[:10].astype(int) - rgb[:10]).mean() > 10


def test_overlay_refuses_a_map_of_another_size() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        overlay(np.zeros((4, 4, 3), dtype=np.uint8), np.zeros((4, 5), dtype=np.float32))


def test_fit_within_shrinks_and_never_grows() -> None:
    wide = np.zeros((100, 400, 3), dtype=np.uint8)
    assert fit_within(wide, 200).shape == (50, 200, 3)
    assert fit_within(wide, 800) is wide


def test_explaining_imports_neither_torch_nor_pandas() -> None:
    code = (
        "import sys, imago.evaluation.explain; print([n for n in ('torch', 'pandas', 'sklearn') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
