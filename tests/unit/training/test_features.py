"""The head fitted on frozen features is a logistic regression of them."""

import torch
from torch.nn import functional

from imago.training.classifier import create_classifier
from imago.training.features import compute_features, fit_head
from imago.training.head import embed
from tests.unit.training.moths import ARCHITECTURE, SIZE

Rows = tuple[torch.Tensor, torch.Tensor]


def _clouds(count: int, seed: int, spread: float = 1.0) -> Rows:
    """Three clouds of points in ten dimensions, some of which have very unlike scales."""
    centres = torch.randn(3, 10, generator=torch.Generator().manual_seed(0)) * 3
    noise = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    points = centres[labels] + spread * torch.randn(count, 10, generator=noise)
    return points * torch.logspace(-3, 3, 10) + 5, labels


def test_clouds_that_lie_apart_are_told_apart_whatever_their_scale() -> None:
    head = fit_head(_clouds(90, 1), _clouds(30, 2), 3)
    points, labels = _clouds(300, 3)
    assert (head(points).argmax(1) == labels).float().mean() > 0.97


def test_a_penalty_is_chosen_that_the_held_out_labels_bear_out() -> None:
    train, val = _clouds(40, 1, spread=6.0), _clouds(200, 2, spread=6.0)
    loss = functional.cross_entropy(fit_head(train, val, 3)(val[0]), val[1]).item()
    unpenalised = fit_head(train, train, 3)
    assert loss < functional.cross_entropy(unpenalised(val[0]), val[1]).item()


def test_the_fit_is_repeatable() -> None:
    one, same = (fit_head(_clouds(60, 1), _clouds(30, 2), 3) for _ in range(2))
    assert torch.equal(one.weight, same.weight)
    assert torch.equal(one.bias, same.bias)


def test_features_are_what_the_head_sees_and_leave_the_network_as_it_was() -> None:
    torch.manual_seed(0)
    model = create_classifier(ARCHITECTURE, "none", 3, SIZE)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images, labels = torch.randn(5, 3, SIZE, SIZE), torch.arange(5)
    counted: list[int] = []
    features, truth = compute_features(
        model, [(images[:3], labels[:3]), (images[3:], labels[3:])], on_batch=counted.append
    )
    assert torch.equal(truth, labels)
    assert counted == [3, 2]
    with torch.no_grad():
        assert torch.allclose(features, embed(model, model.forward_features(images)), atol=1e-5)
        assert torch.allclose(model.get_classifier()(features), model(images), atol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
