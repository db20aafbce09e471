"""Distributed training: one process a device, each with a part of every batch."""
