"""Reading pickles as data: arrays of bytes, numbers, names, lists and dicts; whatever asks for more is refused."""

import io
import pickle
from collections.abc import Callable, Sequence
from reprlib import Repr
from typing import Any, ClassVar


def load_plain(data: bytes) -> Any:
    """What a pickle holds, with the texts of Python 2 as bytes. A hostile one can raise anything, no more."""
    return _PlainUnpickler(io.BytesIO(data), encoding="bytes").load()


class _Short(Repr):
    """Looks at no more of a value than is shown of it: a few hundred bytes can stand for a list of billions."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 2
        self.maxlong = self.maxstring = self.maxother = 60

    def repr_bytes(self, value: bytes, _: int) -> str:
        return repr(value[: self.maxstring])


def in_short(value: object) -> str:
    try:
        text = _Short().repr(value).encode("ascii", "backslashreplace").decode()
    except ValueError:  # a number with too many digits
        text = type(value).__name__
    return text if len(text) <= 60 else f"{text[:57]}..."


def as_text(name: str | bytes) -> str:
    return name if isinstance(name, str) else name.decode("utf-8", errors="replace")


class PickledArray:
    """Stands in for numpy.ndarray: takes the state of a pickled array of bytes, and runs nothing."""

    shape: tuple[int, ...] = ()
    pixels: bytes = b""

    def __setstate__(self, state: object) -> None:
        match state:
            case (1, tuple() as shape, _Dtype(code="u1"), False | 0, bytes() as pixels):
                self.shape, self.pixels = shape, pixels
            case _:
                raise pickle.UnpicklingError(f"expected the state of a C-ordered array of bytes, got {in_short(state)}")


class _Dtype:
    """Stands in for numpy.dtype."""

    def __init__(self, code: str | bytes = "", *_: object) -> None:
        self.code = as_text(code)

    def __setstate__(self, state: object) -> None:
        """Byte order and the like: an array of bytes has none."""


class _Reconstruct:
    """Stands in for NumPy's function. Without attributes, unlike a function's, there is nothing a pickle could set."""

    __slots__ = ()

    def __call__(self, *_: object) -> PickledArray:
        return PickledArray()


class _Encode:
    """Stands in for codecs.encode, which is how Python 3 writes bytes in protocol 2."""

    __slots__ = ()

    def __call__(self, text: str, encoding: str) -> bytes:
        if encoding != "latin1":
            raise pickle.UnpicklingError(f"expected bytes written as latin1, got {in_short(encoding)}")
        return text.encode("latin1")


_KNOWN = {
    ("numpy.core.multiarray", "_reconstruct"): _Reconstruct(),
    ("numpy._core.multiarray", "_reconstruct"): _Reconstruct(),
    ("numpy", "ndarray"): PickledArray,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _Encode(),
}


# fmt: off
_PLAIN = (
    "PROTO", "FRAME", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1",
    "BINFLOAT", "EMPTY_DICT", "SETITEM", "SETITEMS", "EMPTY_LIST", "APPEND", "APPENDS",
    "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3",
    "BINSTRING", "SHORT_BINSTRING", "BINUNICODE", "SHORT_BINUNICODE", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
    "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET", "MEMOIZE", "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD",
)
# fmt: on
_PLAIN_CODES = {getattr(pickle, name)[0] for name in _PLAIN}


class _PlainUnpickler(pickle._Unpickler):
    """Knows only what the official files contain, or what NumPy 2 writes for the same.

    It is Python's own reader in Python: the one in C can be made to overflow its stack or to fill the memory.
    """

    stack: list[Any]

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which image data has no use for")
        return _KNOWN[module, name]

    def load_setitem(self) -> None:
        self._names_only(self.stack[-2:-1])
        super().load_setitem()  # type: ignore[misc]

    def load_setitems(self) -> None:
        self._names_only(self.stack[::2])
        super().load_setitems()  # type: ignore[misc]

    def _names_only(self, keys: Sequence[object]) -> None:
        if not all(isinstance(key, str | bytes) for key in keys):
            raise pickle.UnpicklingError("it has a dict with keys that are no names")

    dispatch: ClassVar[dict[int, Callable[..., None]]] = {
        **{code: read for code, read in pickle._Unpickler.dispatch.items() if code in _PLAIN_CODES},
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
    }
