"""The summary of predictions for your own images: counts, log lines, and a page with thumbnails."""

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
from tasks.core.reports.sprites import image_data_uri

MAX_THUMBNAILS = 200
MAX_EXAMPLES = 50
MAX_LINES = 10
GENERATED_TRAINING_IMAGES = (
    "TRAINED ON GENERATED IMAGES, NOT ON CIFAR-10: these predictions say nothing about your images"
)


class Thumbnail(NamedTuple):
    """One image as the network receives it, with its prediction."""

    path: str
    uri: str
    predicted: str
    confidence: float


@dataclass
class PredictionSummary:
    """Counts the predictions of a run, and keeps thumbnails that are evenly spread over all `files`."""

    run: str
    weights: str
    lineage: Lineage
    files: int
    counts: Counter[str] = field(default_factory=Counter)
    thumbnails: list[Thumbnail] = field(default_factory=list)
    unreadable: int = 0
    examples: list[Unreadable] = field(default_factory=list)

    @property
    def images(self) -> int:
        return self.counts.total()

    def add(self, pictures: Sequence[Picture], probabilities: NDArray[np.float32]) -> None:
        """Add a batch of images, with their probabilities [N, classes]."""
        every = -(-self.files // MAX_THUMBNAILS)
        for picture, row in zip(pictures, probabilities, strict=True):
            predicted = self.lineage.classes[row.argmax()]
            if self.images % every == 0:
                uri = image_data_uri(picture.pixels_chw)
                self.thumbnails.append(Thumbnail(as_text(picture.path), uri, predicted, float(row.max())))
            self.counts[predicted] += 1

    def add_unreadable(self, files: Sequence[Unreadable]) -> None:
        self.unreadable += len(files)
        self.examples += files[: MAX_EXAMPLES - len(self.examples)]

    def render_page(self) -> str:
        """Render the gallery, a self-contained page."""
        return html.render(
            "predictions.html.j2",
            summary=self,
            classes=self.counts.most_common(),
            printable=printable,
            file_name=lambda path: printable(Path(path).name),
        )

    def log_lines(self) -> Iterator[str]:
        return (f"predict: {line}" for line in self._lines())

    def markdown(self) -> str:
        """The summary for Prefect's UI; file names are not interpreted as markup."""
        return "\n\n".join(f"<code>{escape(line)}</code>" for line in self._lines())

    def _lines(self) -> Iterator[str]:
        if self.files <= MAX_LINES:
            for image in self.thumbnails:
                yield f"{printable(image.path)}: {image.predicted} ({image.confidence:.1%})"
        counts = ", ".join(f"{name} {count:,}" for name, count in self.counts.most_common())
        yield f"{self.images:,} image{'' if self.images == 1 else 's'} predicted by run {self.run}: {counts or 'none'}"
        if self.unreadable:
            yield f"{self.unreadable:,} file{'' if self.unreadable == 1 else 's'} cannot be read:"
        for example in self.examples[:MAX_LINES]:
            yield f"  {printable(example.path)}: {example.reason}"
        if self.unreadable > MAX_LINES:
            yield f"  and {self.unreadable - MAX_LINES:,} more"
        if self.lineage.dataset.is_generated:
            yield GENERATED_TRAINING_IMAGES
