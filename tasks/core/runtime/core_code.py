"""The digest of the code that builds an artifact, one entry for each symbol.

The digest starts at the function that builds an artifact and follows imported names through the modules of
`tasks.core`. It ignores comments, docstrings and layout, and is equal on every version of Python. Installed packages
count by their version and settings by their values, so modules that only carry settings are not followed. The store
is not followed either, because it does not change an artifact's bytes.
"""

import ast
import hashlib
from collections.abc import Callable, Iterator, Set
from functools import cache
from pathlib import Path

PACKAGE = "tasks.core"
CORE = Path(__file__).parents[1]
UNTRACKED_MODULES = {f"{PACKAGE}.{name}" for name in ("config", "errors", "recipes", "runtime.files", "runtime.logs")}
MODULE_BODY = "<module>"

# The source of every module whose code can change an artifact's bytes, by module name; it is read at import, so that
# files edited during a run do not count for it.
SOURCES = {
    ".".join((PACKAGE, *path.relative_to(CORE).with_suffix("").parts)): path.read_text(encoding="utf-8")
    for path in CORE.rglob("*.py")
    if path.name != "__init__.py" and CORE / "store" not in path.parents
}

Symbol = tuple[str, str]
"""A module's dotted name and the name of a top-level definition in it."""


def code_digests(function: Callable[..., object]) -> dict[str, str]:
    """Return `{"tasks/core/models/tutorial_net.py: Net": "3fa9…"}` for `function` and every symbol that it reaches."""
    return _digest_reachable([(function.__module__, function.__qualname__)])


def module_digests(names: Set[str]) -> dict[str, str]:
    """Return the same for all definitions of the core's modules among `names`, and for what they reach."""
    modules = SOURCES.keys() & names
    return _digest_reachable([(module, name) for module in modules for name in _module(module).definitions])


def tree_digest(tree: ast.Module) -> str:
    """Return the digest of a whole file's code."""
    return short_hash(canonical_text(_without_docstrings(tree.body)).encode())


def short_hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


def _digest_reachable(pending: list[Symbol]) -> dict[str, str]:
    digests: dict[Symbol, str] = {}
    while pending:
        module, name = _find_definition(pending.pop())
        if (module.name, name) not in digests:
            words = module.used_words(name)
            code = [canonical_text(node) for node in module.definitions.get(name, [])]
            origins = [f"{word}={module.imports[word]}" for word in sorted(words & module.imports.keys())]
            digests[module.name, name] = short_hash("\n".join(code + origins).encode())
            pending += [symbol for word in words for symbol in module.resolve(word)]
            if MODULE_BODY in module.definitions:
                pending.append((module.name, MODULE_BODY))
    return {f"{module.replace('.', '/')}.py: {name}": digest for (module, name), digest in sorted(digests.items())}


def canonical_text(node: object) -> str:
    """Return a syntax tree as text without positions, docstrings and empty fields.

    `ast.dump` differs between versions of Python: later versions add fields and leave out empty ones.
    """
    if isinstance(node, list):
        return f"[{','.join(map(canonical_text, node))}]"
    if not isinstance(node, ast.AST):
        return ascii(node)
    fields = {name: value for name, value in ast.iter_fields(node) if name not in ("ctx", "kind", "type_comment")}
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        fields["body"] = _without_docstrings(node.body)
    if isinstance(node, ast.JoinedStr):  # Python 3.12 ends formats with an empty string
        fields["values"] = [part for part in node.values if not (isinstance(part, ast.Constant) and part.value == "")]
    texts = [
        f"{name}={canonical_text(value)}" for name, value in sorted(fields.items()) if value is not None and value != []
    ]
    return f"{type(node).__name__}({','.join(texts)})"


def _without_docstrings(body: list[ast.stmt]) -> list[ast.stmt]:
    expressions = [statement for statement in body if isinstance(statement, ast.Expr)]
    strings = [each for each in expressions if isinstance(getattr(each.value, "value", None), str)]
    return [statement for statement in body if statement not in strings]


class _Module:
    """A module of the core: its top-level definitions and the origins of its imported names."""

    def __init__(self, name: str) -> None:
        self.name = name
        tree = ast.parse(SOURCES[name])
        self.definitions: dict[str, list[ast.stmt]] = {}
        for statement in _without_docstrings(tree.body):
            if not isinstance(statement, ast.Import | ast.ImportFrom):
                for defined in _defined_names(statement):
                    self.definitions.setdefault(defined, []).append(statement)
        self.imports: dict[str, str] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom | ast.Import):
                self._add_import(node)

    def _add_import(self, node: ast.ImportFrom | ast.Import) -> None:
        for alias in node.names:
            if isinstance(node, ast.Import):
                origin, can_follow = alias.name, not alias.name.startswith(PACKAGE)
            else:
                origin = f"{node.module}.{alias.name}"
                can_follow = not node.level and not (alias.name == "*" and origin.startswith(PACKAGE))
            if not can_follow or f"{PACKAGE}.".startswith(f"{origin}."):
                raise ValueError(f"{self.name}: write `from {PACKAGE}… import NAME`; other imports are not followed")
            self.imports[alias.asname or alias.name.partition(".")[0]] = origin

    def used_words(self, name: str) -> set[str]:
        """Return the names in a definition's code, each with `.attribute` (or `.*`) appended as well."""
        words: set[str] = set()
        pending: list[ast.AST] = list(self.definitions.get(name, []))
        while pending:
            node = pending.pop()
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                words |= {node.value.id, f"{node.value.id}.{node.attr}"}
            elif isinstance(node, ast.Name):
                words |= {node.id, f"{node.id}.*"}
            else:
                pending += ast.iter_child_nodes(node)
        return words

    def resolve(self, word: str) -> Iterator[Symbol]:
        """Yield the core's symbols that a used word refers to."""
        name, _, attribute = word.partition(".")
        origin = self.imports.get(name, "")
        parent = origin.rpartition(".")[0]
        if not attribute and name in self.definitions:
            yield self.name, name
        elif origin in SOURCES.keys() - UNTRACKED_MODULES and attribute:
            yield from ((origin, each) for each in (_module(origin).definitions if attribute == "*" else [attribute]))
        elif not attribute and parent in SOURCES.keys() - UNTRACKED_MODULES:
            yield parent, origin.rpartition(".")[2]


def _find_definition(symbol: Symbol) -> tuple[_Module, str]:
    module, name = _module(symbol[0]), symbol[1]
    if name in module.definitions:
        return module, name
    imported = next(iter(module.resolve(name)), None)
    return _find_definition(imported) if imported else (module, MODULE_BODY)


def _defined_names(statement: ast.stmt) -> set[str]:
    """Return the names that a top-level statement binds, and MODULE_BODY if it does more than that."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {statement.name}
    parts = list(ast.walk(statement))
    bound = {part.id for part in parts if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)}
    if isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign) and bound:
        return bound
    return {MODULE_BODY} | bound | {part.name for part in parts if isinstance(part, ast.FunctionDef | ast.ClassDef)}


_module = cache(_Module)
