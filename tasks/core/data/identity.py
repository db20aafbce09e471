"""The identity of a dataset: official CIFAR-10, another archive, or generated images."""

import json
from pathlib import Path
from typing import Literal

from tasks.core.frozen_model import FrozenModel

Kind = Literal["generated", "archive", "official"]
OFFICIAL_SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
NOT_CIFAR10 = "GENERATED IMAGES, NOT CIFAR-10: the results of this run do not apply to CIFAR-10"
RANKS: tuple[Kind, ...] = ("generated", "archive", "official")


class Identity(FrozenModel):
    """Which images a dataset holds; `sha256` is the archive's."""

    kind: Kind
    name: str
    sha256: str

    @property
    def is_generated(self) -> bool:
        return self.kind == "generated"

    @property
    def rank(self) -> int:
        """The position in RANKS; official CIFAR-10 has the highest."""
        return RANKS.index(self.kind)

    def has_same_images(self, other: "Identity") -> bool:
        """Whether both are the same archive or both are generated; the number of generated images may differ."""
        return self.sha256 == other.sha256 or (self.is_generated and other.is_generated)


def read_identity(dataset: Path) -> Identity:
    """Read the identity of the dataset in a folder, without its arrays."""
    return Identity.model_validate(json.loads((dataset / "dataset.json").read_text(encoding="utf-8"))["identity"])
