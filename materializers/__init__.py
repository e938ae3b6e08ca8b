"""One file an artifact type: how it is stored, and how the dashboard shows it."""
