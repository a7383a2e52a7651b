"""VLMs."""
