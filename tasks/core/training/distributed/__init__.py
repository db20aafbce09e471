"""Training in several processes, one device each."""
