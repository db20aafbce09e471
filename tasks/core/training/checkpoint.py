"""Checkpoints: where training stands, written aside and renamed, checked when read."""

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tasks.core.runtime import files

DIGEST_BYTES = 32


class DamagedCheckpoint(Exception):
    """A checkpoint's bytes are not those that were saved."""


@dataclass(frozen=True)
class Checkpoint:
    """The one checkpoint of a training in `folder`, which belongs to the key of the weights alone."""

    folder: Path

    @property
    def _path(self) -> Path:
        return self.folder / "checkpoint.pt"

    def save(self, state: Mapping[str, Any]) -> None:
        """Replace the checkpoint whole, its SHA-256 first."""
        self.folder.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()
        torch.save(dict(state), content)
        payload = content.getvalue()
        files.write_bytes(self._path, hashlib.sha256(payload).digest() + payload)

    def load(self, device: torch.device) -> dict[str, Any] | None:
        """What was saved last; None where nothing was, DamagedCheckpoint where other bytes are found."""
        files.sweep(self._path)
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return None
        digest, payload = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
        if hashlib.sha256(payload).digest() != digest:
            raise DamagedCheckpoint(f"{self._path}: its bytes are not those that were saved")
        state: dict[str, Any] = torch.load(io.BytesIO(payload), map_location=device, weights_only=True)
        return state
