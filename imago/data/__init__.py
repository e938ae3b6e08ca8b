"""Pictures: where they come from, what they hold, whether they may be used."""
