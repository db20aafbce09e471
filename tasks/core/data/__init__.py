"""The datasets that the pipeline trains on and evaluates: sources, archives, identity and checks."""
