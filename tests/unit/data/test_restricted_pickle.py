"""Pickles that are more than plain data are refused, and none of their code runs."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
from archives import RECONSTRUCT, TEST, assert_holds, python2_batch, python2_meta, python2_string, python2_text, refusal
from tiny import CLASSES, official_archive

from tasks.core.data.archive import read_archive


def malicious_pickles(tmp_path: Path) -> dict[str, bytes]:
    """Pickles that would create the file `ran` when loaded, one for each way to call a function."""
    ran = str(tmp_path / "ran")
    touch, make = python2_text(f"touch {ran}"), python2_text(f"open({ran!r}, 'w').close()")
    return {
        "os.system": b"cos\nsystem\n" + touch + b"\x85R",
        "posix.system": b"cposix\nsystem\n" + touch + b"\x85R",
        "subprocess": b"csubprocess\ncall\n](" + python2_text("touch") + python2_text(ran) + b"e\x85R",
        "eval": b"cbuiltins\neval\n" + make + b"\x85R",
        "exec": b"cbuiltins\nexec\n" + make + b"\x85R",
        "Python 2's eval": b"c__builtin__\neval\n" + make + b"\x85R",
        "by stack": python2_text("os") + python2_text("system") + b"\x93" + touch + b"\x85R",
        "by INST": b"(" + touch + b"ios\nsystem\n",
        "by OBJ": b"(cos\nsystem\n" + touch + b"o",
        "by NEWOBJ": b"csubprocess\nPopen\n" + python2_text(f"touch {ran}") + b"\x85\x81",
        "through numpy": b"cnumpy.testing._private.utils\nrunstring\n" + make + b"}\x86R",
        "through numpy's own os": b"cnumpy.core.multiarray\nos.system\n" + touch + b"\x85R",
        "by a dotted name": python2_text("numpy") + python2_text("dtype.__init__") + b"\x93" + touch + b"\x85R",
        "without a call": b"cos\nsystem\n",
        "by getattr": b"cbuiltins\ngetattr\ncnumpy\nndarray\n" + python2_text("__init__") + b"\x86R",
        "by a module's attribute": b"cnumpy\nos\n",
        "an import": b"cantigravity\nnothing\n",
    }


@pytest.mark.parametrize("way", sorted(malicious_pickles(Path())))
def test_a_pickle_with_a_call_is_refused_and_runs_nothing(tmp_path: Path, way: str) -> None:
    meta = python2_meta(CLASSES, extra=malicious_pickles(tmp_path)[way])
    message = refusal(official_archive(tmp_path / "archive", members={"batches.meta": meta}))
    assert message.startswith("batches.meta: expected a pickle of plain data")
    assert not (tmp_path / "ran").exists()


class Payload:
    """An object whose pickle calls a function when it is loaded."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


@pytest.mark.parametrize("protocol", range(6))
def test_a_payload_by_reduce_is_refused_in_every_protocol(tmp_path: Path, protocol: int) -> None:
    for payload in (Payload(os.mkdir, str(tmp_path / "ran")), Payload(exec, f"open({str(tmp_path / 'ran')!r}, 'w')")):
        batch = pickle.dumps({b"labels": [0], b"data": payload}, protocol)
        refusal(official_archive(tmp_path / "archive", members={"data_batch_1": batch}))
        assert not (tmp_path / "ran").exists()


def test_the_error_names_the_forbidden_global(tmp_path: Path) -> None:
    meta = python2_meta(CLASSES, extra=b"cos\nsystem\n")
    assert "os.system" in refusal(official_archive(tmp_path / "archive", members={"batches.meta": meta}))


def test_the_error_contains_no_terminal_control_characters(tmp_path: Path) -> None:
    meta = python2_meta(CLASSES, extra=python2_text("o\x1b[2Js") + python2_text("sys\ntem") + b"\x93")
    refusal(official_archive(tmp_path / "archive", members={"batches.meta": meta}))  # asserts one printable line


STATE = b"}" + python2_text("pixels") + python2_text("x") + b"s"

INVALID = {
    "a persistent id": b"Psomething\n",
    "a persistent id from the stack": b"K\x01Q",
    "an extension": b"\x82\x01",
    "an out-of-band buffer": b"\x97",
    "attributes for numpy's function": RECONSTRUCT + STATE + b"b",
    "slots for numpy's function": RECONSTRUCT + b"N" + STATE + b"\x86b",
    "another class for numpy's function": RECONSTRUCT + b"N}" + python2_text("__class__") + b"cnumpy\ndtype\ns\x86b",
    "attributes for the array class": b"cnumpy\nndarray\n" + STATE + b"b",
    "slots for the array class": b"cnumpy\nndarray\nN" + STATE + b"\x86b",
    "attributes for the dtype class": b"cnumpy\ndtype\n" + STATE + b"b",
    "attributes for codecs.encode": b"c_codecs\nencode\n" + STATE + b"b",
    "attributes for an array": b"cnumpy\nndarray\n)\x81" + STATE + b"b",
    "attributes for a list": b"]" + STATE + b"b",
    "another codec": b"c_codecs\nencode\n" + python2_text("x") + python2_text("rot13") + b"\x86R",
    "a codec of bytes": b"c_codecs\nencode\n" + b"U\x01x" + python2_text("zlib") + b"\x86R",
    "a dtype of a number": b"cnumpy\ndtype\nK\x01\x85R",
    "an array with arguments": b"cnumpy\nndarray\nK\x01\x85R",
    "an array with a length": b"cnumpy\nndarray\nJ\xff\xff\xff\x7f\x85\x81",
    "an item of a list": b"]K\x01K\x02s",
    "an unhashable key": b"}]K\x02s",
    "a mark without content": b"(",
    "an empty stack": b"0000",
    "a missing memo entry": b"h\xf0",
    "an unknown opcode": b"\xff",
    "a newer protocol": b"\x80\x63N",
    "a number of too many digits": b"L" + b"9" * 5_000 + b"L\n",
    "an invalid number": b"Ione\n",
    "invalid text": b"X\x02\x00\x00\x00\xff\xff",
    "a string longer than the file": b"T\xff\xff\xff\x7fx",
    "a string of negative length": b"T\xff\xff\xff\xffx",
    "bytes longer than memory": b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7fx",
    "a bytearray longer than memory": b"\x96\xff\xff\xff\xff\xff\xff\xff\x7fx",
}


@pytest.mark.parametrize("way", INVALID)
def test_invalid_opcodes_are_refused_and_change_no_later_read(tmp_path: Path, way: str) -> None:
    meta = python2_meta(CLASSES, extra=INVALID[way])
    refusal(official_archive(tmp_path / "archive", members={"batches.meta": meta}))
    assert_holds(read_archive(official_archive(tmp_path / "archive")))


def test_values_nested_too_deeply_to_print_are_refused(tmp_path: Path) -> None:
    lists = b"]" * 50_000 + b"a" * 49_999
    deep = {
        "batches.meta": b"\x80\x02}" + python2_string(b"label_names") + lists + b"s.",
        "data_batch_1": b"\x80\x02" + lists + b".",
        "test_batch": python2_batch(TEST).replace(b"M\x03\x00M\x00\x0c\x86", b")" + b"\x85" * 50_000),
    }
    for name, body in deep.items():
        assert refusal(official_archive(tmp_path / "archive", members={name: body})).startswith(f"{name}: ")
