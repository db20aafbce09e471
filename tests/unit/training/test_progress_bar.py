"""The bar that shows on a terminal how far training is."""

import io

from rich.console import Console

from tasks.core.training.monitor import Progress
from tasks.core.training.progress_bar import in_words, progress_bar

PROGRESS = Progress(images_done=500, images_in_all=2_000, loss=1.2345, accuracy=0.5, validation_accuracy=None)


def test_it_shows_share_count_loss_accuracy_speed_and_time_left() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=140, color_system=None)
    with progress_bar(console, lambda _: None) as (show, _):
        show(PROGRESS)
        show(PROGRESS)
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    for part in ("25%", "500/2000", "loss 1.234, 50.0% right", "images/s", ":"):
        assert part in shown


def test_lines_are_said_above_the_bar_which_goes_on() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=140, color_system=None)
    with progress_bar(console, lambda line: console.file.write(f"{line}\n")) as (show, say):
        show(PROGRESS)
        say("[1,  2000] loss: 1.234")
        show(PROGRESS)
    assert isinstance(console.file, io.StringIO)
    before, _, after = console.file.getvalue().partition("[1,  2000] loss: 1.234\n")
    assert "25%" in before
    assert "25%" in after


def test_held_out_images_are_told_where_there_are_some() -> None:
    validated = Progress(500, 2_000, 1.2345, 0.5, validation_accuracy=0.541)
    assert in_words(validated, 1_234.5) == "loss 1.234, 50.0% right, held out 54.1%, 1,234 images/s"
    assert in_words(PROGRESS, 0.0) == "loss 1.234, 50.0% right, 0 images/s"
