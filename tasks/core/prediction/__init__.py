"""Prediction: what the network of a run makes of other images."""
