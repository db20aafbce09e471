"""What runs: one file a flow. Sequence only; the work is in `tasks`."""
