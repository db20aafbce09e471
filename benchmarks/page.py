"""The page of results: a section for a CPU and one for a GPU, each of the machine that it was measured on last."""

import re
from collections.abc import Mapping

CPU, GPU = "On a CPU", "On a GPU"
INTRODUCTION = """# Measured side by side

`make bench` writes this file, but for what a section says was put together by hand. Theirs is what a user would use \
instead, the tutorial's script as printed first of all; both run in turn in one run, each in a process of its own, and \
the median is told, with its range in brackets.
"""
TITLE = re.compile(r"^## (.+)\n", re.MULTILINE)


def updated(standing: str, measured: Mapping[str, str]) -> str:
    """The page as it stands, with the sections that were measured in the places of their last ones."""
    _, *parts = TITLE.split(standing)
    sections = {CPU: "Not measured.", GPU: "Not measured."} | dict(zip(parts[::2], parts[1::2], strict=True)) | measured
    return INTRODUCTION + "".join(f"\n## {title}\n\n{text.strip()}\n" for title, text in sections.items())
