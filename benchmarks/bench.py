"""What the measurements share: the images, in every form that one of them reads, and how often to measure."""

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from processes import ask, say


@dataclass(frozen=True)
class Bench:
    """One run of the benchmarks, with its files in `folder`; each form of the images is made when first needed."""

    folder: Path
    source: Path | None
    pairs: int
    chosen: tuple[str, ...]

    def rounds(self, name: str) -> Iterator[int]:
        """1, 2, … up to the number of pairs, each said."""
        for number in range(1, self.pairs + 1):
            say(f"{name}: pair {number} of {self.pairs}")
            yield number

    @cached_property
    def archive(self) -> Path:
        """The archive that was given, or one of generated images."""
        if self.source:
            return self.source
        say("generating images")
        path = self.folder / "generated.tar.gz"
        ask("ours.py", "generate", path=path)
        return path

    @cached_property
    def extracted(self) -> Path:
        """The folder that torchvision finds the images in."""
        folder = self.folder / "extracted"
        with tarfile.open(self.archive) as tar:
            tar.extractall(folder, filter="data")
        return folder

    @cached_property
    def dataset(self) -> Path:
        """The folder of our arrays."""
        folder = self.folder / "dataset"
        ask("ours.py", "normalize", archive=self.archive, into=folder)
        return folder

    @cached_property
    def identity(self) -> dict[str, str]:
        """Kind, name and SHA-256 of the images."""
        identity: dict[str, str] = json.loads((self.dataset / "dataset.json").read_text(encoding="utf-8"))["identity"]
        return identity

    def goal(self, words: str) -> str:
        """A goal for an accuracy, which generated images say nothing about."""
        return "none on generated images" if self.identity["kind"] == "generated" else words
