"""The digest of code: blind to layout, awake to every symbol that is reached."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from code_projects import CORE, Project, changed, output_of

MAKING = '''
"""Making."""
import math
from pathlib import Path

from tasks.core import shapes
from tasks.core.config import EPOCHS
from tasks.core.helpers import LIMIT, Net, noted, scaled

COUNT = 1_000


@noted
def make(folder: Path, count: int = COUNT) -> float:
    """Make it."""
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
        """Make a net."""
        self.size = size

    def forward(self, x):
        from tasks.core.late import shift_images

        return shift_images(x) * self.scale


def scaled(x, by=2):
    return x * by


def noted(function):
    @wraps(function)
    def inner(*arguments):
        return function(*arguments)

    return inner
'''
LATE = """
def shifted(x):
    return x + 1
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    core = tmp_path / "tasks" / "core"
    core.mkdir(parents=True)
    for folder in (core.parent, core):
        (folder / "__init__.py").touch()
    shutil.copyfile(CORE / "code_digest.py", core / "code_digest.py")
    project = Project(tmp_path)
    for name, source in {"making": MAKING, "shapes": SHAPES, "helpers": HELPERS, "late": LATE}.items():
        project.write(name, source)
    project.write("config", "EPOCHS = 2\n")
    return project


# What is covered


def test_every_symbol_that_is_reached_is_covered_by_name(project: Project) -> None:
    assert set(project.digests()) == {
        "tasks/core/helpers.py: LIMIT",
        "tasks/core/helpers.py: Layer",
        "tasks/core/helpers.py: Net",
        "tasks/core/helpers.py: noted",
        "tasks/core/helpers.py: scaled",
        "tasks/core/late.py: shifted",
        "tasks/core/making.py: COUNT",
        "tasks/core/making.py: make",
        "tasks/core/shapes.py: FACTOR",
        "tasks/core/shapes.py: _square",
        "tasks/core/shapes.py: area",
    }


@pytest.mark.parametrize(
    ("module", "old", "new", "symbol"),
    [
        ("making", "min(LIMIT", "max(LIMIT", "making.py: make"),
        ("making", "1_000", "1_001", "making.py: COUNT"),
        ("making", "@noted", "@noted\n@noted", "making.py: make"),
        ("shapes", "* FACTOR", "/ FACTOR", "shapes.py: area"),
        ("shapes", "side**2", "side * side", "shapes.py: _square"),
        ("shapes", "FACTOR = 2", "FACTOR = 3", "shapes.py: FACTOR"),
        ("helpers", "LIMIT: int = 10", "LIMIT: int = 20", "helpers.py: LIMIT"),
        ("helpers", "scale = 3", "scale = 4", "helpers.py: Layer"),
        ("helpers", "self.size = size", "self.size = epochs", "helpers.py: Net"),
        ("helpers", "by=2", "by=3", "helpers.py: scaled"),
        ("helpers", "return function(", "return 2 * function(", "helpers.py: noted"),
        ("late", "x + 1", "x + 2", "late.py: shifted"),
    ],
)
def test_a_changed_symbol_changes_its_own_digest_only(
    project: Project, module: str, old: str, new: str, symbol: str
) -> None:
    before = project.digests()

    project.edit(module, old, new)

    assert changed(before, project.digests()) == {f"tasks/core/{symbol}"}


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("making", "count + 1", "count + 2"),
        ("shapes", "side**3", "side * side * side"),
        ("helpers", "UNUSED = 11", "UNUSED = 12"),
        ("config", "EPOCHS = 2", "EPOCHS = 3"),
        ("code_digest", "[:12]", "[:4 * 3]"),
    ],
)
def test_what_is_not_reached_changes_nothing(project: Project, module: str, old: str, new: str) -> None:
    before = project.digests()

    project.edit(module, old, new)

    assert project.digests() == before


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("making", "  # square metres", ""),
        ("making", "    area =", "    # the area comes first\n    area ="),
        ("making", '"""Making."""', '"""Making, in other words."""'),
        ("making", '"""Make it."""', '"""Make it,\n\n    in many lines.\n    """'),
        ("making", '    """Make it."""\n', ""),
        ("making", "\n\n\n@noted", "\n\n@noted"),
        ("making", "area = shapes.area(min(LIMIT, count))", "area = (\n        shapes.area(\n  min(LIMIT,count,),\n))"),
        ("making", "1_000", "1000"),
        ("making", "COUNT = 1_000", 'COUNT = 1_000\n"""How many."""'),
        ("helpers", '"""A net."""', "'''A \\u006eet.'''"),
        ("helpers", '"""Make a net."""', "# no docstring"),
        ("helpers", "LIMIT: int = 10\nUNUSED = 11", "UNUSED = 11\nLIMIT: int = 10"),
        ("helpers", "self.size = size", "self . size=size ;"),
    ],
)
def test_comments_docstrings_and_layout_change_nothing(project: Project, module: str, old: str, new: str) -> None:
    before = project.digests()

    project.edit(module, old, new)

    assert project.digests() == before


def test_it_is_the_code_that_this_process_has_imported_whatever_becomes_of_the_files(project: Project) -> None:
    before = project.digests()
    later = """
import json, sys
from pathlib import Path
from tasks.core.runtime.core_code import code_digests
from tasks.core.making import make
Path("tasks/core/shapes.py").write_text("FACTOR = 3")
print(json.dumps(code_digests(make)))
"""
    assert json.loads(output_of(sys.executable, later, folder=project.folder)) == before
    assert "tasks/core/shapes.py: FACTOR" in changed(before, project.digests())


def test_other_line_ends_change_nothing(project: Project) -> None:
    before = project.digests()

    path = project.folder / "tasks" / "core" / "helpers.py"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))

    assert project.digests() == before


def test_a_helper_that_comes_into_use_is_named(project: Project) -> None:
    before = project.digests()

    project.edit("making", "shapes.area(", "shapes.volume(")

    assert changed(before, project.digests()) == {
        "tasks/core/making.py: make",
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
def test_what_a_module_does_to_its_names_counts(project: Project, statement: str) -> None:
    project.write("late", "SIZES = [1, 2, 3]\ndef shifted(x): return x + len(SIZES)\n")
    before = project.digests()

    project.write("late", f"SIZES = [1, 2, 3]\n{statement}\ndef shifted(x): return x + len(SIZES)\n")

    assert changed(before, project.digests())


def test_what_a_module_calls_as_it_is_imported_is_reached(project: Project) -> None:
    project.write(
        "late", "from tasks.core.helpers import UNUSED\nprint(end='' * UNUSED)\ndef shift_images(x): return x\n"
    )

    assert {"tasks/core/late.py: <module>", "tasks/core/helpers.py: UNUSED"} <= set(project.digests())


def test_modules_that_use_each_other_come_to_an_end(project: Project) -> None:
    project.write(
        "late",
        "from tasks.core import helpers\ndef shift_images(x): return helpers.scaled(x) if x else shift_images(1)\n",
    )
    project.edit("helpers", "return x * by", "from tasks.core import late\n    return late.shifted(0) or x * by")

    assert "tasks/core/late.py: shifted" in project.digests()


@pytest.mark.parametrize(
    ("before", "after"),
    [("1", "1.0"), ("1", "True"), ("'1'", "1"), ("'1'", "b'1'"), ("0.0", "-0.0"), ("()", "[]"), ("None", "...")],
)
def test_values_that_look_alike_are_told_apart(project: Project, before: str, after: str) -> None:
    project.write("late", f"def shifted(x): return {before}\n")
    first = project.digests()

    project.write("late", f"def shifted(x): return {after}\n")

    assert changed(first, project.digests()) == {"tasks/core/late.py: shifted"}


# Names from elsewhere


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
def test_a_name_that_comes_to_mean_something_else_is_a_change(
    project: Project, before: str, after: str, use: str
) -> None:
    project.write("config", "EPOCHS = 2\nSEED = 1\n")
    project.write("late", f"{before}\ndef shifted(x): return {use}\n")
    first = project.digests()

    project.write("late", f"{after}\ndef shifted(x): return {use}\n")

    assert changed(first, project.digests())


def test_imports_of_names_that_are_not_used_change_nothing(project: Project) -> None:
    before = project.digests()

    project.edit("late", "def shifted", "import json\nfrom tasks.core.shapes import volume\n\n\ndef shifted")

    assert project.digests() == before


def reaches(project: Project, label: str) -> bool:
    """Whether a symbol is reached, or else the digest refused with a word on the module that stands in the way."""
    try:
        return label in project.digests()
    except RuntimeError as error:
        if str(error).splitlines()[-1].startswith("ValueError: tasks.core."):
            return True
        raise


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
def test_code_is_reached_whichever_way_it_is_imported_or_the_way_is_refused(
    project: Project, statement: str, use: str
) -> None:
    project.edit("making", "Net(scaled(area)", "Net(area")
    project.edit("making", ", scaled", "")
    assert not reaches(project, "tasks/core/helpers.py: scaled")
    project.write("late", f"{statement}\ndef shifted(x): return {use}\n")

    assert reaches(project, "tasks/core/helpers.py: scaled")


@pytest.mark.parametrize(
    ("front", "label"),
    [
        ("from tasks.core.late import shifted as moved\n", "late.py: shifted"),
        ("from tasks.core import late\nmoved = late.shifted\n", "late.py: shifted"),
        ("try:\n    from tasks.core.late import shifted as moved\nexcept ImportError:\n    pass\n", "late.py: shifted"),
        ("if True:\n    def moved(x): return x\n", "front.py: moved"),
        ("with open(__file__):\n    def moved(x): return x\n", "front.py: moved"),
        ("moved, rest = (abs, 0)\n", "front.py: moved"),
        ("moved: object\nmoved = abs\n", "front.py: moved"),
    ],
    ids=["imported", "assigned", "imported if there", "conditional", "in a context", "unpacked", "declared first"],
)
def test_however_a_module_comes_by_a_name_others_reach_it_or_that_is_refused(
    project: Project, front: str, label: str
) -> None:
    project.write("front", front)
    project.edit(
        "making", "from tasks.core.helpers import", "from tasks.core.front import moved\nfrom tasks.core.helpers import"
    )
    project.edit("making", "scaled(area)", "moved(area)")
    project.edit("helpers", "shifted(x)", "x")

    assert reaches(project, f"tasks/core/{label}")
