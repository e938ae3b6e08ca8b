"""One file a pipeline: which step feeds which."""
