"""The plain library: it imports no Prefect, so it runs in a notebook, a test or on a GPU box as it is."""
