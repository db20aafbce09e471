"""Checkpoints: written atomically, and checked when read."""

from pathlib import Path

import pytest
import torch

from tasks.core.training.checkpoint import Checkpoint

CPU = torch.device("cpu")


def test_a_checkpoint_loads_as_it_was_saved(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "unfinished")
    assert checkpoint.load(CPU) is None
    checkpoint.save({"tensor": torch.arange(3), "position": (1, 2)})
    state = checkpoint.load(CPU)
    assert state is not None
    assert torch.equal(state["tensor"], torch.arange(3))
    assert state["position"] == (1, 2)


@pytest.mark.parametrize("damage", ["a flipped bit", "a lost end", "nothing left"])
def test_a_damaged_checkpoint_is_not_resumed_from(tmp_path: Path, damage: str, log: list[str]) -> None:
    checkpoint = Checkpoint(tmp_path)
    checkpoint.save({"tensor": torch.zeros(100)})
    [path] = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes({"a flipped bit": bytes(content), "a lost end": content[:-1], "nothing left": b""}[damage])
    assert checkpoint.load(CPU) is None
    assert log == [f"train: checkpoint {path} is damaged; starting from the beginning"]
