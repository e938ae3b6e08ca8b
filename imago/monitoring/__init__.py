"""Watches what the endpoint is asked."""
