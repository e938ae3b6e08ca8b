"""Errors: the nearest known names."""

from imago.errors import did_you_mean


def test_the_nearest_name_is_offered() -> None:
    assert did_you_mean("resnet5O", ["resnet50", "vgg11"]) == " Did you mean 'resnet50'?"


def test_nothing_is_offered_where_nothing_is_near() -> None:
    assert did_you_mean("zzz", ["resnet50", "vgg11"]) == ""
