"""The digest of code: it ignores layout and covers every symbol that is reached."""

import shutil
from pathlib import Path

import pytest
from code_projects import CORE, CORE_CODE, Project, changed, digests_of

BUILDING = '''
"""Building."""
import math
from pathlib import Path

from tasks.core import shapes
from tasks.core.config import EPOCHS
from tasks.core.helpers import LIMIT, Net, noted, scaled

COUNT = 1_000


@noted
def build(folder: Path, count: int = COUNT) -> float:
    """Build it."""
    area = shapes.area(min(LIMIT, count))  # square metres
    return Net(scaled(area), EPOCHS).forward(math.pi)


def unrelated(count: int) -> int:
    return count + 1
'''
SHAPES = """
FACTOR = 2


def area(side: float) -> float:
    return _square(side) * FACTOR


def _square(side: float) -> float:
    return side**2


def volume(side: float) -> float:
    return side**3
"""
HELPERS = '''
from functools import wraps

LIMIT: int = 10
UNUSED = 11


class Layer:
    """A layer."""

    scale = 3


class Net(Layer):
    """A net."""

    def __init__(self, size, epochs):
        """Build a net."""
        self.size = size

    def forward(self, x):
        from tasks.core.late import shift

        return shift(x) * self.scale


def scaled(x, by=2):
    return x * by


def noted(function):
    @wraps(function)
    def inner(*arguments):
        return function(*arguments)

    return inner
'''
LATE = """
def shift(x):
    return x + 1
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    core = tmp_path / "tasks" / "core"
    for folder in (core.parent, core, core / "runtime"):
        folder.mkdir()
        (folder / "__init__.py").touch()
    shutil.copyfile(CORE / CORE_CODE, core / CORE_CODE)
    project = Project(tmp_path)
    for name, source in {"building": BUILDING, "shapes": SHAPES, "helpers": HELPERS, "late": LATE}.items():
        project.write(name, source)
    project.write("config", "EPOCHS = 2\n")
    return project


# Coverage


def test_every_reached_symbol_has_an_entry(project: Project) -> None:
    assert set(project.digests()) == {
        "tasks/core/helpers.py: LIMIT",
        "tasks/core/helpers.py: Layer",
        "tasks/core/helpers.py: Net",
        "tasks/core/helpers.py: noted",
        "tasks/core/helpers.py: scaled",
        "tasks/core/late.py: shift",
        "tasks/core/building.py: COUNT",
        "tasks/core/building.py: build",
        "tasks/core/shapes.py: FACTOR",
        "tasks/core/shapes.py: _square",
        "tasks/core/shapes.py: area",
    }


@pytest.mark.parametrize(
    ("module", "old", "new", "symbol"),
    [
        ("building", "min(LIMIT", "max(LIMIT", "building.py: build"),
        ("building", "1_000", "1_001", "building.py: COUNT"),
        ("building", "@noted", "@noted\n@noted", "building.py: build"),
        ("shapes", "* FACTOR", "/ FACTOR", "shapes.py: area"),
        ("shapes", "side**2", "side * side", "shapes.py: _square"),
        ("shapes", "FACTOR = 2", "FACTOR = 3", "shapes.py: FACTOR"),
        ("helpers", "LIMIT: int = 10", "LIMIT: int = 20", "helpers.py: LIMIT"),
        ("helpers", "scale = 3", "scale = 4", "helpers.py: Layer"),
        ("helpers", "self.size = size", "self.size = epochs", "helpers.py: Net"),
        ("helpers", "by=2", "by=3", "helpers.py: scaled"),
        ("helpers", "return function(", "return 2 * function(", "helpers.py: noted"),
        ("late", "x + 1", "x + 2", "late.py: shift"),
    ],
)
def test_a_changed_symbol_changes_only_its_own_digest(
    project: Project, module: str, old: str, new: str, symbol: str
) -> None:
    before = project.digests()

    project.edit(module, old, new)

    assert changed(before, project.digests()) == {f"tasks/core/{symbol}"}


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("building", "count + 1", "count + 2"),
        ("shapes", "side**3", "side * side * side"),
        ("helpers", "UNUSED = 11", "UNUSED = 12"),
        ("config", "EPOCHS = 2", "EPOCHS = 3"),
        ("runtime/core_code", "[:12]", "[:4 * 3]"),
    ],
)
def test_code_that_is_not_reached_changes_nothing(project: Project, module: str, old: str, new: str) -> None:
    before = project.digests()

    project.edit(module, old, new)

    assert project.digests() == before


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("building", "  # square metres", ""),
        ("building", "    area =", "    # the area comes first\n    area ="),
        ("building", '"""Building."""', '"""Building, in other words."""'),
        ("building", '"""Build it."""', '"""Build it,\n\n    in many lines.\n    """'),
        ("building", '    """Build it."""\n', ""),
        ("building", "\n\n\n@noted", "\n\n@noted"),
        (
            "building",
            "area = shapes.area(min(LIMIT, count))",
            "area = (\n        shapes.area(\n  min(LIMIT,count,),\n))",
        ),
        ("building", "1_000", "1000"),
        ("building", "COUNT = 1_000", 'COUNT = 1_000\n"""How many."""'),
        ("helpers", '"""A net."""', "'''A \\u006eet.'''"),
        ("helpers", '"""Build a net."""', "# no docstring"),
        ("helpers", "LIMIT: int = 10\nUNUSED = 11", "UNUSED = 11\nLIMIT: int = 10"),
        ("helpers", "self.size = size", "self . size=size ;"),
    ],
)
def test_comments_docstrings_and_layout_change_nothing(project: Project, module: str, old: str, new: str) -> None:
    before = project.digests()

    project.edit(module, old, new)

    assert project.digests() == before


def test_files_edited_after_the_import_do_not_count(project: Project) -> None:
    before = project.digests()
    core_code = project.load()

    project.edit("shapes", "FACTOR = 2", "FACTOR = 3")

    assert digests_of(core_code, "tasks.core.building.build") == before
    assert changed(before, project.digests()) == {"tasks/core/shapes.py: FACTOR"}


def test_other_line_endings_change_nothing(project: Project) -> None:
    before = project.digests()

    path = project.folder / "tasks" / "core" / "helpers.py"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))

    assert project.digests() == before


def test_a_newly_used_helper_is_named(project: Project) -> None:
    before = project.digests()

    project.edit("building", "shapes.area(", "shapes.volume(")

    assert changed(before, project.digests()) == {
        "tasks/core/building.py: build",
        "tasks/core/shapes.py: volume",
        "tasks/core/shapes.py: area",
        "tasks/core/shapes.py: _square",
        "tasks/core/shapes.py: FACTOR",
    }


@pytest.mark.parametrize(
    "statement",
    [
        "SIZES.append(4)",
        "SIZES[0] = 5",
        "SIZES += [6]",
        "if len(SIZES) > 1:\n    SIZES.clear()",
        "for size in range(3):\n    SIZES.append(size)",
        "del SIZES[0]",
    ],
)
def test_statements_that_change_a_modules_names_count(project: Project, statement: str) -> None:
    project.write("late", "SIZES = [1, 2, 3]\ndef shift(x): return x + len(SIZES)\n")
    before = project.digests()

    project.write("late", f"SIZES = [1, 2, 3]\n{statement}\ndef shift(x): return x + len(SIZES)\n")

    assert changed(before, project.digests())


def test_calls_at_import_are_reached(project: Project) -> None:
    project.write("late", "from tasks.core.helpers import UNUSED\nprint(end='' * UNUSED)\ndef shift(x): return x\n")

    assert {"tasks/core/late.py: <module>", "tasks/core/helpers.py: UNUSED"} <= set(project.digests())


def test_modules_may_import_each_other(project: Project) -> None:
    project.write(
        "late",
        "from tasks.core import helpers\ndef shift(x): return helpers.scaled(x) if x else shift(1)\n",
    )
    project.edit("helpers", "return x * by", "from tasks.core import late\n    return late.shift(0) or x * by")

    assert "tasks/core/late.py: shift" in project.digests()


@pytest.mark.parametrize(
    ("before", "after"),
    [("1", "1.0"), ("1", "True"), ("'1'", "1"), ("'1'", "b'1'"), ("0.0", "-0.0"), ("()", "[]"), ("None", "...")],
)
def test_similar_values_have_different_digests(project: Project, before: str, after: str) -> None:
    project.write("late", f"def shift(x): return {before}\n")
    first = project.digests()

    project.write("late", f"def shift(x): return {after}\n")

    assert changed(first, project.digests()) == {"tasks/core/late.py: shift"}


# Imported names


@pytest.mark.parametrize(
    ("before", "after", "use"),
    [
        ("from math import floor as rounded", "from math import ceil as rounded", "rounded(x)"),
        ("from math import sqrt", "from cmath import sqrt", "sqrt(x)"),
        ("import math", "import cmath as math", "math.sqrt(x)"),
        ("from tasks.core.config import EPOCHS as n", "from tasks.core.config import SEED as n", "n * x"),
    ],
    ids=["other name", "other module", "other module of the same name", "other setting"],
)
def test_a_name_with_another_origin_is_a_change(project: Project, before: str, after: str, use: str) -> None:
    project.write("config", "EPOCHS = 2\nSEED = 1\n")
    project.write("late", f"{before}\ndef shift(x): return {use}\n")
    first = project.digests()

    project.write("late", f"{after}\ndef shift(x): return {use}\n")

    assert changed(first, project.digests())


def test_unused_imports_change_nothing(project: Project) -> None:
    before = project.digests()

    project.edit("late", "def shift", "import json\nfrom tasks.core.shapes import volume\n\n\ndef shift")

    assert project.digests() == before


def reaches(project: Project, label: str) -> bool:
    """Whether a symbol is reached, or the digest is refused with an error that names the module."""
    try:
        return label in project.digests()
    except ValueError as error:
        return str(error).startswith("tasks.core.")


@pytest.mark.parametrize(
    ("statement", "use"),
    [
        ("from tasks.core.helpers import scaled", "scaled(x)"),
        ("from tasks.core.helpers import scaled as scale", "scale(x)"),
        ("from tasks.core import helpers", "helpers.scaled(x)"),
        ("from tasks.core import helpers as h", "h.scaled(x)"),
        ("import tasks.core.helpers as h", "h.scaled(x)"),
        ("import tasks.core.helpers", "tasks.core.helpers.scaled(x)"),
        ("import tasks.core", "tasks.core.helpers.scaled(x)"),
        ("from tasks import core", "core.helpers.scaled(x)"),
        ("from . import helpers", "helpers.scaled(x)"),
        ("from .helpers import scaled", "scaled(x)"),
        ("from tasks.core.helpers import *", "scaled(x)"),
        ("from tasks.core import helpers", "vars(helpers)['scaled'](x)"),
    ],
)
def test_every_form_of_import_is_followed_or_refused(project: Project, statement: str, use: str) -> None:
    project.edit("building", "Net(scaled(area)", "Net(area")
    project.edit("building", ", scaled", "")
    assert not reaches(project, "tasks/core/helpers.py: scaled")
    project.write("late", f"{statement}\ndef shift(x): return {use}\n")

    assert reaches(project, "tasks/core/helpers.py: scaled")


@pytest.mark.parametrize(
    ("front", "label"),
    [
        ("from tasks.core.late import shift as moved\n", "late.py: shift"),
        ("from tasks.core import late\nmoved = late.shift\n", "late.py: shift"),
        ("try:\n    from tasks.core.late import shift as moved\nexcept ImportError:\n    pass\n", "late.py: shift"),
        ("if True:\n    def moved(x): return x\n", "front.py: moved"),
        ("with open(__file__):\n    def moved(x): return x\n", "front.py: moved"),
        ("moved, rest = (abs, 0)\n", "front.py: moved"),
        ("moved: object\nmoved = abs\n", "front.py: moved"),
    ],
    ids=["imported", "assigned", "imported if there", "conditional", "in a context", "unpacked", "declared first"],
)
def test_every_form_of_definition_is_followed_or_refused(project: Project, front: str, label: str) -> None:
    project.write("front", front)
    project.edit(
        "building",
        "from tasks.core.helpers import",
        "from tasks.core.front import moved\nfrom tasks.core.helpers import",
    )
    project.edit("building", "scaled(area)", "moved(area)")
    project.edit("helpers", "shift(x)", "x")

    assert reaches(project, f"tasks/core/{label}")
