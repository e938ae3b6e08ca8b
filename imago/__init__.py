"""Imago: trains, tests, deploys and monitors image classifiers. Nothing in here knows ZenML."""

from imago import telemetry

__version__ = "0.1.0"

telemetry.switch_off()
