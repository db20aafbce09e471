"""Export: the network of a run as files that other programs run."""
