"""The digests of the real core: each builder's own, and the same on every Python."""

import json
import shutil
import sys
import textwrap
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from code_projects import CORE, Project, changed, output_of

DIGESTS_WITHOUT_IMPORTS = """
import json, sys
from types import FunctionType
from tasks.core.runtime.core_code import code_digests
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
    "tasks.core.data.synthetic.write_archive",
    "tasks.core.data.dataset.normalize_into",
    "tasks.core.data.checks.check_into",
    "tasks.core.training.train.train_into",
    "tasks.core.models.tutorial_net.Net",
    "tasks.core.evaluation.evaluate.predict_into",
    "tasks.core.evaluation.evaluate.summarize_into",
    "tasks.core.reports.report.report_into",
)


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
        "tasks.core.data.synthetic.write_archive": set(),
        "tasks.core.data.dataset.normalize_into": set(),
        "tasks.core.data.checks.check_into": set(),
        "tasks.core.training.train.train_into": {
            "tasks/core/models/tutorial_net.py: Net"
        },  # whose steps are written out
        "tasks.core.models.tutorial_net.Net": {"tasks/core/models/tutorial_net.py: Net"},
        "tasks.core.evaluation.evaluate.predict_into": set(),
        "tasks.core.evaluation.evaluate.summarize_into": set(),
        "tasks.core.reports.report.report_into": set(),
    }


def test_a_changed_way_to_read_the_dataset_changes_all_that_read_it(copy: Project) -> None:
    before = real_digests(copy)

    copy.edit("dataset", 'mmap_mode="c"', 'mmap_mode="r"')

    after = real_digests(copy)
    readers = {name for name in BUILDERS if changed(before[name], after[name])}
    assert readers == {
        "tasks.core.data.checks.check_into",
        "tasks.core.training.train.train_into",
        "tasks.core.evaluation.evaluate.predict_into",
        "tasks.core.reports.report.report_into",
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
