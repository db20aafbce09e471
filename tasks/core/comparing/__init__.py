"""Several runs on the same images, side by side: on a page, for machines, and in a few lines."""
