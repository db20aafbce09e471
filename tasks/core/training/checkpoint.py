"""Checkpoints: the state of a training, written atomically and checked when read."""

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tasks.core.runtime import files
from tasks.core.runtime.logs import logger

DIGEST_BYTES = 32


@dataclass(frozen=True)
class Checkpoint:
    """The checkpoint of one training, in a folder of its own."""

    folder: Path

    @property
    def _path(self) -> Path:
        return self.folder / "checkpoint.pt"

    def save(self, state: Mapping[str, Any]) -> None:
        """Replace the checkpoint atomically; the file starts with its SHA-256."""
        self.folder.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()
        torch.save(dict(state), content)
        payload = content.getvalue()
        files.write_bytes(self._path, hashlib.sha256(payload).digest() + payload)

    def load(self, device: torch.device) -> dict[str, Any] | None:
        """The state saved last; None if there is none or the file is damaged."""
        files.remove_leftovers(self._path)
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return None
        digest, payload = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
        if hashlib.sha256(payload).digest() != digest:
            logger.info(f"train: checkpoint {self._path} is damaged; starting from the beginning")
            return None
        state: dict[str, Any] = torch.load(io.BytesIO(payload), map_location=device, weights_only=True)
        return state
