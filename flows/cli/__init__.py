"""The `cifar` command."""
