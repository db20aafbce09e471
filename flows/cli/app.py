"""The commands of `cifar`; heavy libraries are only imported once a command has checked its arguments."""

import cyclopts

from flows.cli.doctor import doctor
from flows.cli.run_commands import compare, export, predict, recipes, run
from flows.cli.store_commands import gc, history, path, promote, rollback, show, verify
from tasks.core.runtime.environment import library_version

COMMANDS = (run, predict, compare, export, recipes, history, show, promote, rollback, verify, gc, path, doctor)

app = cyclopts.App(
    name="cifar",
    help="Train and evaluate an image classifier on CIFAR-10, and work with the runs in a store.",
    version=lambda: library_version("cifar-flow"),
    suppress_keyboard_interrupt=False,
)
for command in COMMANDS:
    app.command(command)
