"""Prefect tasks, one file a stage; the work itself is done by the plain library in `tasks.core`."""
