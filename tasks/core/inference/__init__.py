"""Inference: predict on your own pictures, export the network."""
