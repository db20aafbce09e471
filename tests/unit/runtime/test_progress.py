"""Progress: a bar on a terminal, a few log lines elsewhere."""

import io

import pytest
from rich.console import Console

from tasks.core.runtime.logs import log_handler, logger
from tasks.core.runtime.progress import BYTES, log_tenths, progress_bar
from tasks.core.training.monitor import Progress

PROGRESS = Progress(images_done=500, total_images=2_000, loss=1.2345, accuracy=0.5, held_out_accuracy=None)


@pytest.fixture
def terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=140, color_system=None)


def text_on(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_terminal_shows_share_count_text_and_time_left(terminal: Console) -> None:
    with progress_bar(console=terminal) as show:
        show(500, 2_000, str(PROGRESS))
        show(500, 2_000, str(PROGRESS))
    for part in ("25%", "500/2000", "loss 1.234, accuracy 50.0%", ":"):
        assert part in text_on(terminal)


def test_a_download_shows_its_bytes(terminal: Console) -> None:
    with progress_bar(BYTES, terminal) as show:
        show(1_000_000, 4_000_000, "example.org")
    assert "1.0/4.0 MB" in text_on(terminal)
    assert "example.org" in text_on(terminal)


def test_log_lines_appear_above_the_bar(terminal: Console) -> None:
    def print_record(_: object) -> None:
        terminal.file.write("[1,  2000] loss: 1.234\n")

    with log_handler(print_record), progress_bar(console=terminal) as show:
        show(500, 2_000)
        logger.info("a line")
        show(500, 2_000)
    before, _, after = text_on(terminal).partition("[1,  2000] loss: 1.234\n")
    assert "25%" in before
    assert "25%" in after


def test_the_accuracy_on_held_out_images_is_shown() -> None:
    validated = Progress(500, 2_000, 1.2345, 0.5, held_out_accuracy=0.541)
    assert str(validated) == "loss 1.234, accuracy 50.0%, held-out accuracy 54.1%"


def test_without_a_terminal_there_is_no_bar() -> None:
    console = Console(file=io.StringIO())
    with progress_bar(console=console) as show:
        show(500, 2_000)
    assert text_on(console) == ""


@pytest.mark.parametrize(("total", "lines"), [(10_000, 9), (1_005, 9), (999, 0), (1, 0)])
def test_progress_is_logged_in_a_few_lines(total: int, lines: int, log: list[str]) -> None:
    for done in range(1, total + 1):
        log_tenths(done, total)
    assert len(log) == lines
    assert not log or log[0].endswith(f"of {total:,} images")
