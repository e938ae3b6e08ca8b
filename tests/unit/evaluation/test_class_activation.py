"""The maps show what the answer was learnt from, on pictures of noise with one patch that says the class."""

from collections.abc import Iterator

import numpy as np
import pytest
import timm
import torch
from torch import nn

from imago.evaluation.class_activation import NoClassActivationError, class_activation_maps

SIZE, PATCH = 64, 16
NETWORKS = 3  # whose mean counts: one and the same seed teaches another network on another processor
SHARE = (PATCH / SIZE) ** 2  # of the picture's area


def stamped(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return noise with a patch of upright or lying stripes somewhere, which of them, and a mask of where."""
    pixels = rng.normal(0, 0.5, (count, 3, SIZE, SIZE)).astype(np.float32)
    classes = rng.integers(0, 2, count)
    mask = np.zeros((count, SIZE, SIZE), dtype=bool)
    upright = np.tile(np.where(np.arange(PATCH) // 4 % 2, 2.0, -2.0), (PATCH, 1))
    for index, label in enumerate(classes):
        row, column = PATCH * rng.integers(0, SIZE // PATCH, 2)
        place = slice(row, row + PATCH), slice(column, column + PATCH)
        pixels[index][:, *place] = upright if label else upright.T
        mask[index][place] = True
    return pixels, classes, mask


def on_the_patch(module: nn.Module, pixels: np.ndarray, classes: np.ndarray, mask: np.ndarray) -> tuple[float, float]:
    """Return the share of the maps' mass that lies on the patch, and of the pictures whose hottest place does."""
    maps = class_activation_maps(module, pixels, classes)
    mass = (maps * mask).sum((1, 2)) / np.maximum(maps.sum((1, 2)), 1e-9)
    hottest = maps.reshape(len(maps), -1).argmax(1)
    return float(mass.mean()), float(mask.reshape(len(mask), -1)[np.arange(len(mask)), hottest].mean())


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small train faster on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("architecture", "options", "steps"),
    [
        ("test_byobnet", {"output_stride": 16}, 60),
        ("test_vit", {"img_size": SIZE}, 100),
        ("test_vit", {"img_size": SIZE, "global_pool": "avg"}, 100),
    ],
    ids=["cnn", "vit with a class token", "vit of averaged places"],
)
def test_the_map_lies_on_the_patch_that_the_class_was_learnt_from(
    architecture: str, options: dict[str, object], steps: int
) -> None:
    found = [taught(architecture, options, steps, seed) for seed in range(NETWORKS)]
    mass_before, mass, hottest = np.mean(found, axis=0)
    assert mass_before < 2 * SHARE
    assert mass > 3 * SHARE
    assert hottest > 0.8


def taught(architecture: str, options: dict[str, object], steps: int, seed: int) -> tuple[float, float, float]:
    """Teach a network; return the share of the mass on the patch before, and both that `on_the_patch` gives after."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    module = timm.create_model(architecture, num_classes=2, **options)
    pixels, classes, mask = stamped(32, rng)
    mass_before, _ = on_the_patch(module, pixels, classes, mask)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
    module.train()
    for _ in range(steps):
        batch, truth, _ = stamped(24, rng)
        loss = nn.functional.cross_entropy(module(torch.from_numpy(batch)), torch.from_numpy(truth))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.inference_mode():
        assert (module.eval()(torch.from_numpy(pixels)).argmax(1).numpy() == classes).mean() > 0.9
    return mass_before, *on_the_patch(module, pixels, classes, mask)


@pytest.mark.parametrize("architecture", ["test_resnet", "test_efficientnet"])
def test_the_map_of_a_mirror_image_is_the_mirrored_map(architecture: str) -> None:
    torch.manual_seed(0)
    module = timm.create_model(architecture, num_classes=3).eval()
    nn.init.normal_(module.get_classifier().weight)
    pixels = np.random.default_rng(0).normal(size=(2, 3, 160, 160)).astype(np.float32)
    classes = np.array([0, 2])
    maps = class_activation_maps(module, pixels, classes)
    mirrored = class_activation_maps(module, pixels[:, :, :, ::-1].copy(), classes)
    assert maps.max() > maps.min()
    np.testing.assert_allclose(mirrored[:, :, ::-1], maps, atol=1e-3)


def test_no_pictures_give_no_maps() -> None:
    module = timm.create_model("test_resnet", num_classes=2)
    assert class_activation_maps(module, np.zeros((0, 3, 32, 32), np.float32), np.zeros(0, np.int64)).shape == (
        0,
        32,
        32,
    )


class Unusual(nn.Module):
    """A network that keeps what its features are to be, and has more tokens before the places than it has tokens."""

    num_prefix_tokens = 9

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.shape = shape
        self.scale = nn.Parameter(torch.ones(()))

    def forward_features(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.scale * torch.ones(len(pixels), *self.shape)

    def forward_head(self, features: torch.Tensor) -> torch.Tensor:
        return features.flatten(1)[:, :2]


class Paired(Unusual):
    """A network whose head gives two answers at once."""

    def forward_head(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # type: ignore[override]
        return features, features


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (nn.Linear(3, 2), "no attribute 'forward_features'"),
        (Paired(3, 8, 8), "no attribute 'mean'"),
        (Unusual(4, 6), "no square grid"),
        (Unusual(2), "no square grid"),
    ],
    ids=["no features", "two answers", "fewer tokens than its prefix", "no places"],
)
def test_an_unusual_architecture_is_refused_so_that_another_method_can_be_taken(module: nn.Module, reason: str) -> None:
    with pytest.raises(NoClassActivationError, match=reason):
        class_activation_maps(module, np.zeros((1, 3, 64, 64), np.float32), np.zeros(1, np.int64))
