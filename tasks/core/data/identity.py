"""Which images a dataset is made of, and how datasets rank."""

import json
from pathlib import Path
from typing import Literal

from tasks.core.frozen_model import FrozenModel

Kind = Literal["generated", "archive", "official"]
OFFICIAL_SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
NOT_CIFAR10 = "THESE ARE GENERATED IMAGES AND NOT CIFAR-10: no number of this run says anything about CIFAR-10"
RANKS: tuple[Kind, ...] = ("generated", "archive", "official")


class Identity(FrozenModel):
    """Which images these are; `sha256` is the archive's."""

    kind: Kind
    name: str
    sha256: str

    @property
    def generated(self) -> bool:
        return self.kind == "generated"

    @property
    def rank(self) -> int:
        """Official CIFAR-10 above any other archive, that above generated images."""
        return RANKS.index(self.kind)

    def same_images(self, other: "Identity") -> bool:
        """Whether both are the same archive, or both generated, in whatever number or compression."""
        return self.sha256 == other.sha256 or (self.generated and other.generated)


def read_identity(dataset: Path) -> Identity:
    """The identity of the dataset whose payload is in a folder, without its arrays."""
    return Identity.model_validate(json.loads((dataset / "dataset.json").read_text(encoding="utf-8"))["identity"])
