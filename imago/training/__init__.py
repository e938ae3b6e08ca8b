"""Fits a timm classifier with Lightning."""
