"""A trained model as a folder, and the service that answers with it."""
