"""The digest of code: blind to layout, awake to every symbol that is reached, the same on every Python."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tasks.core import code_digest

CORE = Path(code_digest.__file__).parent

DIGESTS = """
import json, sys
from importlib import import_module
from tasks.core.code_digest import code_digests
module, function = sys.argv[1:]
print(json.dumps(code_digests(getattr(import_module(module), function))))
"""

DIGESTS_WITHOUT_IMPORTS = """
import json, sys
from types import FunctionType
from tasks.core.code_digest import code_digests
found = {}
for builder in sys.argv[1:]:
    def stand_in(): "What digests need of a function, so that torch and NumPy need not be there."
    stand_in.__module__, _, stand_in.__qualname__ = builder.rpartition(".")
    found[builder] = code_digests(stand_in)
print(json.dumps(found))
"""

CANONICAL = """
import ast, json, sys
from importlib.util import module_from_spec, spec_from_file_location
spec = spec_from_file_location("code_digest", sys.argv[1])
code_digest = module_from_spec(spec)
spec.loader.exec_module(code_digest)
print(json.dumps({name: code_digest.canonical(ast.parse(source)) for name, source in json.load(sys.stdin).items()}))
"""

BUILDERS = (
    "tasks.core.synthetic.write_archive",
    "tasks.core.dataset.normalize_into",
    "tasks.core.training.launch.train_into",
    "tasks.core.model.Net",
    "tasks.core.evaluation.predict_into",
    "tasks.core.evaluation.summarize_into",
    "tasks.core.reporting.write_report",
)


def output_of(python: str, code: str, *arguments: str, folder: Path | None = None, told: str = "") -> str:
    """What a Python prints that sees the modules in `folder` first, and takes no byte code for their source."""
    environment = {**os.environ, "PYTHONPATH": str(folder or ""), "PYTHONDONTWRITEBYTECODE": "1"}
    finished = subprocess.run(
        [python, "-c", code, *arguments],
        env=environment,
        cwd=folder,
        input=told,
        capture_output=True,
        text=True,
        check=False,
    )
    if finished.returncode:
        raise RuntimeError(finished.stderr)
    return finished.stdout


@dataclass
class Project:
    """A package `tasks.core` of a few lines, with the real code_digest.py in it."""

    folder: Path

    def write(self, module: str, source: str) -> None:
        path = self.folder / "tasks" / "core" / f"{module}.py"
        path.write_text(textwrap.dedent(source), encoding="utf-8")

    def edit(self, module: str, old: str, new: str) -> None:
        path = self.folder / "tasks" / "core" / f"{module}.py"
        source = path.read_text(encoding="utf-8")
        assert old in source
        path.write_text(source.replace(old, new), encoding="utf-8")

    def digests(self, module: str = "making", function: str = "make") -> dict[str, str]:
        printed = output_of(sys.executable, DIGESTS, f"tasks.core.{module}", function, folder=self.folder)
        digests: dict[str, str] = json.loads(printed)
        return digests


def changed(before: Mapping[str, str], after: Mapping[str, str]) -> set[str]:
    return {label for label in before.keys() | after.keys() if before.get(label) != after.get(label)}


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
        from tasks.core.late import shifted

        return shifted(x) * self.scale


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
    project.write("late", "from tasks.core.helpers import UNUSED\nprint(end='' * UNUSED)\ndef shifted(x): return x\n")

    assert {"tasks/core/late.py: <module>", "tasks/core/helpers.py: UNUSED"} <= set(project.digests())


def test_modules_that_use_each_other_come_to_an_end(project: Project) -> None:
    project.write(
        "late", "from tasks.core import helpers\ndef shifted(x): return helpers.scaled(x) if x else shifted(1)\n"
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


# The real core


@pytest.fixture
def copy(tmp_path: Path) -> Project:
    """The real package, to be edited."""
    shutil.copytree(CORE.parent, tmp_path / "tasks", ignore=shutil.ignore_patterns("__pycache__"))
    return Project(tmp_path)


def real_digests(copy: Project, python: str = sys.executable) -> dict[str, dict[str, str]]:
    """The digests of each builder."""
    found: dict[str, dict[str, str]] = json.loads(
        output_of(python, DIGESTS_WITHOUT_IMPORTS, *BUILDERS, folder=copy.folder)
    )
    return found


def test_a_changed_network_changes_itself_and_training_and_nothing_else(copy: Project) -> None:
    before = real_digests(copy)

    copy.edit("model", "nn.Linear(120, 84)", "nn.Linear(120, 85)")

    after = real_digests(copy)
    assert {builder: changed(before[builder], after[builder]) for builder in BUILDERS} == {
        "tasks.core.synthetic.write_archive": set(),
        "tasks.core.dataset.normalize_into": set(),
        "tasks.core.training.launch.train_into": {"tasks/core/model.py: Net"},  # whose steps are written out
        "tasks.core.model.Net": {"tasks/core/model.py: Net"},
        "tasks.core.evaluation.predict_into": set(),
        "tasks.core.evaluation.summarize_into": set(),
        "tasks.core.reporting.write_report": set(),
    }


def test_comments_in_every_module_of_the_core_change_nothing(copy: Project) -> None:
    before = real_digests(copy)

    for path in (copy.folder / "tasks" / "core").rglob("*.py"):
        path.write_text(f"# a comment\n{path.read_text(encoding='utf-8')}\n\n# another\n", encoding="utf-8")

    assert real_digests(copy) == before


def test_a_changed_default_of_the_settings_is_no_changed_code(copy: Project) -> None:
    before = real_digests(copy)

    copy.edit("recipes", "epochs=2", "epochs=3")

    assert real_digests(copy) == before


# Versions of Python


@pytest.fixture(scope="module")
def pythons() -> dict[tuple[int, int], str]:
    """An interpreter for each version that the project runs on and that this machine has."""
    found = {sys.version_info[:2]: sys.executable}
    for python in _candidates():
        with suppress(OSError, RuntimeError, ValueError):
            major, minor = map(int, output_of(python, "import sys; print(*sys.version_info[:2])").split())
            if (major, minor) >= (3, 11):
                found.setdefault((major, minor), python)
    if len(found) == 1:
        pytest.skip("there is one version of Python on this machine")
    return found


def _candidates() -> Iterator[str]:
    names = [f"python3.{minor}" for minor in range(11, 20)]
    yield from filter(None, map(shutil.which, names))
    for versions in (Path.home() / ".pyenv" / "versions", Path.home() / ".local" / "share" / "uv" / "python"):
        yield from (str(path) for name in names for path in sorted(versions.glob(f"*/bin/{name}")))


ZOO = {
    "strings": "a = 'x' \"y\" r'\\d', b'\\x00' b'\\xff', u'z' '\\u00e9' 'é'\n",
    "numbers": "a = 1_000, 0xFF, 1e3, 1e400, 2j, -1, 10**30, 123456789012345678901234567890\n",
    "constants": "a = None, True, ..., (), [], {}, {1}, {**b, 'c': 1}\n",
    "f-string": "f'{a} and {b!r}'\n",
    "f-string with text around": "'x' f'{{{a}}}' 'y' f'{b}' f'z'\n",
    "f-string of text alone": "f'a' f'{{b}}'\n",
    "f-string with a format": "f'{a:>10} {b:%Y-%m-%d} {c:,.1f}'\n",
    "f-string with an empty format": "f'{a:}'\n",
    "f-string with a nested format": "f'{a:{width}}'\n",
    "f-string with text around a nested format": "f'{a:>{width}.{precision}f}'\n",
    "f-string with a dict in a format": "f'{a:{ {1: 2}[1] }}'\n",
    "f-string in an f-string": "f\"{', '.join(f'{x!s:>{w}}' for x in xs)}\"\n",
    "f-string that debugs": "f'{a = } {b=!s:^9}'\n",
    "f-string of many lines": "f'''\n{a}\n  {b:\n}'''\n",
    "f-string with escapes": "f'\\N{GREEK SMALL LETTER ALPHA}{a}\\x41' rf'\\d{a}'\n",
    "f-string with a lambda": "f'{(lambda x: x)(1)}'\n",
    "match": """
        match a:
            case Point(x=0, y=[1, *rest]) | {"k": -1, **others} if rest:
                pass
            case "s" | None | 1 + 2j | b.c as d:
                pass
            case _:
                pass
    """,
    "walrus": "while (line := next(lines)) and (n := len(line)) > 1: pass\n",
    "lambda": "f = lambda a, /, b=1, *c, d, e=2, **g: (yield)\n",
    "decorators": "@a.b(1)\n@c[0]\n@(d := e)\ndef f(): pass\n\n@g\nclass H(I, metaclass=J, k=1): pass\n",
    "type hints": "x: int\ny: A[str, 'B[int]'] | None = None\n(z): int = 1\ndef f(*a: *Ts, **k: int) -> None: ...\n",
    "async": """
        async def f(a):
            async with a as b, c: pass
            async for d in e: await d
            return [x async for x in y if await x]
    """,
    "try": """
        try: pass
        except (A, B) as e: raise C from e
        except D: raise
        else: pass
        finally: pass
    """,
    "except groups": "try: pass\nexcept* A as e: pass\nexcept* (B, C): pass\n",
    "parameters": "def f(a, b=1, /, c=2, *, d, e=3, **g): return f(*a, b, c=1, **d)\n",
    "with": "with (a as b, c): pass\nwith a, b as (c, d): pass\n",
    "comprehensions": "[x for x in y if a if b for z in x]; {x: y for x, y in z}; {x for x in y}; (x for x in y)\n",
    "slices": "a[1], a[1:2], a[:, ::2, ...], a[*b], a[(1, 2)]\n",
    "targets": "a, *b = c = d; a.b, e[0] = f; a += 1; a @= b; del a, b[0]\n",
    "comparisons": "a < b <= c != d is not e not in f and not g or h\n",
    "loops": "for i, *j in k:\n    continue\nelse:\n    pass\nwhile a:\n    break\nelse:\n    pass\n",
    "scopes": "def f():\n    global a\n    def g():\n        nonlocal b\n        yield from c\n    return\n",
    "docstrings": "'''module'''\ndef f(): '''function'''\nclass C:\n    '''class'''\n    a = 1\n    '''attribute'''\n",
    "other alphabets": "größe = ﬁ = 'ß'\n",
}


@pytest.fixture(scope="module")
def canonical_texts(pythons: dict[tuple[int, int], str]) -> dict[tuple[int, int], dict[str, str]]:
    """What each version of Python makes of the zoo and of every module of the core."""
    sources = {name: textwrap.dedent(source) for name, source in ZOO.items()}
    sources |= {path.name: path.read_text(encoding="utf-8") for path in CORE.glob("*.py")}
    told, digest = json.dumps(sources), str(CORE / "code_digest.py")
    return {version: json.loads(output_of(python, CANONICAL, digest, told=told)) for version, python in pythons.items()}


@pytest.mark.parametrize("name", [*ZOO, *sorted(path.name for path in CORE.glob("*.py"))])
def test_code_reads_the_same_on_every_python(name: str, canonical_texts: dict[tuple[int, int], dict[str, str]]) -> None:
    texts = {version: text[name] for version, text in canonical_texts.items()}

    assert len(set(texts.values())) == 1, texts


def test_the_builders_have_the_same_digests_on_every_python(copy: Project, pythons: dict[tuple[int, int], str]) -> None:
    digests = {version: real_digests(copy, python) for version, python in pythons.items()}

    assert all(each == digests[sys.version_info[:2]] for each in digests.values())
