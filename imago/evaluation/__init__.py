"""Says how good a model is, how sure, and whether it may stand for production."""
