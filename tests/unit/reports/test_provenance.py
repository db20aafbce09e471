"""The provenance in a report."""

import shlex
from datetime import UTC, datetime

import pytest

from flows.cli.app import app
from tasks.core.config import Settings
from tasks.core.data.identity import Identity
from tasks.core.reports.provenance import reproduction_command
from tasks.core.store.artifact import Key, Manifest, Provenance

GENERATED = Identity(kind="generated", name="generated images", sha256="ab" * 32)


def weights_of(settings: Settings) -> Manifest:
    environment = {"device": "cpu", "devices": settings.devices, "deterministic": settings.deterministic}
    key = Key(name="weights", settings={"validation": settings.validation}, environment=environment)
    made = Provenance(at=str(datetime.now(UTC)), seconds=1, run=None, host="here", device="cpu", versions={})
    return Manifest(name="weights", version=key.version, sha256="", key=key, inputs=(), files={}, made=made)


@pytest.mark.parametrize(
    "settings",
    [
        Settings(source="synthetic", device="cpu"),
        Settings(source="synthetic", device="cpu", recipe="fast", nesterov=False, seed=3),
        Settings(source="synthetic", device="cpu", nesterov=True, deterministic=True, validation=100),
        Settings(source="synthetic", device="cpu", recipe="record", devices=2, learning_rate=0.1, steps=7),
    ],
)
def test_the_reproduction_command_has_the_settings_of_the_run(settings: Settings) -> None:
    command = reproduction_command(settings.resolve_recipe(), settings.seed, GENERATED, weights_of(settings))
    python, script, *words = shlex.split(command)

    _, bound, _ = app.parse_args(["run", *words], exit_on_error=False, print_error=False)

    assert (python, script) == ("python", "flows/cifar_flow.py")
    parsed = bound.arguments["settings"]
    assert parsed.resolve_recipe() == settings.resolve_recipe()
    for name in ("source", "device", "devices", "deterministic", "seed", "validation"):
        assert getattr(parsed, name) == getattr(settings, name)
