"""What predictions come to: in numbers, in a few lines, and as a page with thumbnails."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.core.inference.image_decoding import Picture, Unreadable
from tasks.core.inference.image_files import as_text, printable
from tasks.core.models.weights import Lineage
from tasks.core.reports import html
from tasks.core.reports.sprites import png_uri

MOST_THUMBNAILS = 200
MOST_LISTED = 50
MOST_SAID = 10
NOT_CIFAR10 = "THE NETWORK WAS TRAINED ON GENERATED IMAGES AND NOT ON CIFAR-10: its answers say nothing of your images"


class Card(NamedTuple):
    """One image as the network saw it, and its answer."""

    path: str
    uri: str
    predicted: str
    confidence: float


@dataclass
class Overview:
    """The answers of one run's network, of which only counts and a few examples are kept.

    The thumbnails are each `every`-th image by the number of files `found`, so that they are spread over all.
    """

    run: str
    weights: str
    lineage: Lineage
    found: int
    counts: Counter[str] = field(default_factory=Counter)
    cards: list[Card] = field(default_factory=list)
    unreadable: int = 0
    examples: list[Unreadable] = field(default_factory=list)

    @property
    def images(self) -> int:
        return self.counts.total()

    @property
    def every(self) -> int:
        return -(-self.found // MOST_THUMBNAILS)

    def add(self, pictures: Sequence[Picture], probabilities: NDArray[np.float32]) -> None:
        """Take in a batch, with its [N, classes] probabilities."""
        for picture, row in zip(pictures, probabilities, strict=True):
            predicted = self.lineage.classes[row.argmax()]
            if self.images % self.every == 0:
                self.cards.append(Card(as_text(picture.path), png_uri(picture.pixels_chw), predicted, float(row.max())))
            self.counts[predicted] += 1

    def add_unreadable(self, files: Sequence[Unreadable]) -> None:
        self.unreadable += len(files)
        self.examples += files[: MOST_LISTED - len(self.examples)]

    def page(self) -> str:
        """The gallery, which needs no other file."""
        return html.render(
            "predictions.html.j2",
            overview=self,
            classes=self.counts.most_common(),
            printable=printable,
            file_name=_file_name,
        )

    def lines(self) -> Iterator[str]:
        """A few lines for the log."""
        if self.found <= MOST_SAID:
            for card in self.cards:
                yield f"{printable(card.path)}: {card.predicted} ({card.confidence:.1%})"
        counts = ", ".join(f"{name} {count:,}" for name, count in self.counts.most_common())
        yield f"{_many(self.images)} predicted by run {self.run}: {counts or 'none'}"
        if self.unreadable:
            yield f"{self.unreadable:,} file{'' if self.unreadable == 1 else 's'} cannot be read:"
        for example in self.examples[:MOST_SAID]:
            yield f"  {printable(example.path)}: {example.reason}"
        if self.unreadable > MOST_SAID:
            yield f"  and {self.unreadable - MOST_SAID:,} more"
        if self.lineage.dataset.generated:
            yield NOT_CIFAR10

    def markdown(self) -> str:
        """The same for Prefect's UI, in which names of files are no markup."""
        return "\n\n".join(f"<code>{escape(line)}</code>" for line in self.lines())


def _many(images: int) -> str:
    return f"{images:,} image{'' if images == 1 else 's'}"


def _file_name(path: str) -> str:
    return printable(Path(path).name)
