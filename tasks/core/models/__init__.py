"""Models: networks, and loading their weights."""
