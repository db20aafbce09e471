"""The commands of `cifar`; heavy libraries are only imported once a command has checked its arguments."""

import cyclopts

from flows.cli import run_commands, store_commands
from flows.cli.doctor import doctor
from tasks.core.runtime.environment import library_version

COMMANDS = (
    run_commands.run,
    run_commands.predict,
    run_commands.compare,
    run_commands.export,
    run_commands.recipes,
    store_commands.history,
    store_commands.show,
    store_commands.promote,
    store_commands.rollback,
    store_commands.verify,
    store_commands.gc,
    store_commands.path,
    doctor,
)

app = cyclopts.App(
    name="cifar",
    help="Train and evaluate an image classifier on CIFAR-10, and work with the runs in a store.",
    version=lambda: library_version("cifar-flow"),
    suppress_keyboard_interrupt=False,
)
for command in COMMANDS:
    app.command(command)
