"""Code digests are equal on every version of Python that is installed."""

import json
import shutil
import sys
import textwrap
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from code_projects import BUILDERS, CORE, CORE_CODE, run_python

DIGESTS = """
import json, sys
from types import FunctionType
from tasks.core.runtime.core_code import code_digests
found = {}
for builder in sys.argv[1:]:
    def stand_in(): "It has a function's name only, so that torch and NumPy need not be installed."
    stand_in.__module__, _, stand_in.__qualname__ = builder.rpartition(".")
    found[builder] = code_digests(stand_in)
print(json.dumps(found))
"""

CANONICAL = """
import ast, json, sys
from importlib.util import module_from_spec, spec_from_file_location
spec = spec_from_file_location("core_code", sys.argv[1])
core_code = module_from_spec(spec)
spec.loader.exec_module(core_code)
print(json.dumps({name: core_code.canonical_text(ast.parse(source)) for name, source in json.load(sys.stdin).items()}))
"""


CORE_MODULES = sorted(path.relative_to(CORE).as_posix() for path in CORE.rglob("*.py"))


@pytest.fixture(scope="module")
def pythons() -> dict[tuple[int, int], str]:
    """The installed Python interpreters, one for each version that the project supports."""
    found = {sys.version_info[:2]: sys.executable}
    for python in _candidates():
        with suppress(OSError, RuntimeError, ValueError):
            major, minor = map(int, run_python(python, "import sys; print(*sys.version_info[:2])").split())
            if (major, minor) >= (3, 11):
                found.setdefault((major, minor), python)
    if len(found) == 1:
        pytest.skip("only one version of Python is installed")
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
    """The canonical texts of ZOO and of every module of the core, for each version of Python."""
    sources = {name: textwrap.dedent(source) for name, source in ZOO.items()}
    sources |= {name: (CORE / name).read_text(encoding="utf-8") for name in CORE_MODULES}
    sources_json, core_code = json.dumps(sources), str(CORE / CORE_CODE)
    return {
        version: json.loads(run_python(python, CANONICAL, core_code, stdin=sources_json))
        for version, python in pythons.items()
    }


@pytest.mark.parametrize("name", [*ZOO, *CORE_MODULES])
def test_code_has_the_same_text_on_every_python(
    name: str, canonical_texts: dict[tuple[int, int], dict[str, str]]
) -> None:
    texts = {version: text[name] for version, text in canonical_texts.items()}

    assert len(set(texts.values())) == 1, texts


def test_builders_have_the_same_digests_on_every_python(pythons: dict[tuple[int, int], str], tmp_path: Path) -> None:
    shutil.copytree(CORE.parent, tmp_path / "tasks", ignore=shutil.ignore_patterns("__pycache__"))

    digests = {run_python(python, DIGESTS, *BUILDERS, folder=tmp_path) for python in pythons.values()}

    assert len(digests) == 1
