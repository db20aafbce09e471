"""A restricted pickle reader: byte arrays, numbers, strings, lists and dicts; anything else is an error."""

import io
import pickle
from collections.abc import Callable, Sequence
from reprlib import Repr
from typing import Any, ClassVar


def load_restricted(data: bytes) -> Any:
    """Load a pickle of plain data; Python 2 strings become bytes.

    A malicious pickle can raise any exception, but cannot run code.
    """
    return _RestrictedUnpickler(io.BytesIO(data), encoding="bytes").load()


class _ShortRepr(Repr):
    """A repr that visits only what it prints, because a small pickle can describe a list of billions."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 2
        self.maxlong = self.maxstring = self.maxother = 60

    def repr_bytes(self, value: bytes, _: int) -> str:
        return repr(value[: self.maxstring])


def short_repr(value: object) -> str:
    try:
        text = _ShortRepr().repr(value).encode("ascii", "backslashreplace").decode()
    except ValueError:  # a number with too many digits
        text = type(value).__name__
    return text if len(text) <= 60 else f"{text[:57]}..."


def to_text(name: str | bytes) -> str:
    return name if isinstance(name, str) else name.decode("utf-8", errors="replace")


class PickledArray:
    """Replaces numpy.ndarray; accepts only the state of a byte array."""

    shape: tuple[int, ...] = ()
    pixels: bytes = b""

    def __setstate__(self, state: object) -> None:
        match state:
            case (1, tuple() as shape, _Dtype(code="u1"), False | 0, bytes() as pixels):
                self.shape, self.pixels = shape, pixels
            case _:
                raise pickle.UnpicklingError(
                    f"expected the state of a C-ordered array of bytes, got {short_repr(state)}"
                )


class _Dtype:
    """Replaces numpy.dtype."""

    def __init__(self, code: str | bytes = "", *_: object) -> None:
        self.code = to_text(code)

    def __setstate__(self, state: object) -> None:
        """Ignore byte order and alignment, which do not apply to bytes."""


class _Reconstruct:
    """Replaces NumPy's function; has no attributes that a pickle could set."""

    __slots__ = ()

    def __call__(self, *_: object) -> PickledArray:
        return PickledArray()


class _Encode:
    """Replaces codecs.encode, which Python 3 uses for bytes in protocol 2."""

    __slots__ = ()

    def __call__(self, text: str, encoding: str) -> bytes:
        if encoding != "latin1":
            raise pickle.UnpicklingError(f"expected bytes written as latin1, got {short_repr(encoding)}")
        return text.encode("latin1")


_ALLOWED_GLOBALS = {
    ("numpy.core.multiarray", "_reconstruct"): _Reconstruct(),
    ("numpy._core.multiarray", "_reconstruct"): _Reconstruct(),
    ("numpy", "ndarray"): PickledArray,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _Encode(),
}


# fmt: off
_ALLOWED_OPCODES = (
    "PROTO", "FRAME", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1",
    "BINFLOAT", "EMPTY_DICT", "SETITEM", "SETITEMS", "EMPTY_LIST", "APPEND", "APPENDS",
    "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3",
    "BINSTRING", "SHORT_BINSTRING", "BINUNICODE", "SHORT_BINUNICODE", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
    "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET", "MEMOIZE", "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD",
)
# fmt: on
_ALLOWED_CODES = {getattr(pickle, name)[0] for name in _ALLOWED_OPCODES}


class _RestrictedUnpickler(pickle._Unpickler):
    """Accepts only what the official files contain, or what NumPy 2 writes for the same data.

    It extends Python's pure-Python reader, because a crafted pickle can crash the C reader or exhaust memory.
    """

    stack: list[Any]

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED_GLOBALS:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed in an image archive")
        return _ALLOWED_GLOBALS[module, name]

    def load_setitem(self) -> None:
        self._check_keys(self.stack[-2:-1])
        super().load_setitem()  # type: ignore[misc]

    def load_setitems(self) -> None:
        self._check_keys(self.stack[::2])
        super().load_setitems()  # type: ignore[misc]

    def _check_keys(self, keys: Sequence[object]) -> None:
        if not all(isinstance(key, str | bytes) for key in keys):
            raise pickle.UnpicklingError("a dict key is not a string")

    dispatch: ClassVar[dict[int, Callable[..., None]]] = {
        **{code: read for code, read in pickle._Unpickler.dispatch.items() if code in _ALLOWED_CODES},
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
    }
