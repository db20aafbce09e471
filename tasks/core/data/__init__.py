"""Data: where images come from and what they become."""
