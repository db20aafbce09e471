"""Training: from images in memory to weights, resumable to the bit."""
