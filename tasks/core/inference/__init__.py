"""Predictions for your own images, and export of networks for other programs."""
