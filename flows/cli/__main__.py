"""Lets `python -m flows.cli` and the flow scripts start the command line."""

from flows.cli.main import start

start()
