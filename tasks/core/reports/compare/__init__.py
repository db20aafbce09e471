"""The comparison of several runs on the same test images."""
