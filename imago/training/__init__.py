"""Fits a timm classifier with Lightning."""

import imago.torchvision_compat  # noqa: F401 - before timm and Lightning import torchvision
