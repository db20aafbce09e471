"""Which images a dataset is made of, and how datasets rank."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

Kind = Literal["generated", "archive", "official"]
OFFICIAL_SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
RANKS: tuple[Kind, ...] = ("generated", "archive", "official")


class Identity(BaseModel):
    """Which images these are; `sha256` is the archive's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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
