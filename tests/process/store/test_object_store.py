"""The object store of the tests is as strict as S3."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from botocore.exceptions import ClientError
from object_store import ObjectStore, serving_objects


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    with serving_objects(tmp_path_factory.mktemp("objects")) as store:
        yield store


def test_a_wrong_secret_is_refused(store: ObjectStore) -> None:
    store.write("a/secret", b"1")
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        store.client(secret="guessed").get_object(Bucket=store.bucket, Key="a/secret")


def test_if_none_match_never_replaces_an_object(store: ObjectStore) -> None:
    store.client().put_object(Bucket=store.bucket, Key="a/new", Body=b"1", IfNoneMatch="*")
    with pytest.raises(ClientError, match="PreconditionFailed"):
        store.client().put_object(Bucket=store.bucket, Key="a/new", Body=b"2", IfNoneMatch="*")
    assert store.read("a/new") == b"1"


def test_if_match_never_replaces_a_changed_object(store: ObjectStore) -> None:
    store.write("a/changing", b"1")
    etag = store.client().head_object(Bucket=store.bucket, Key="a/changing")["ETag"]
    store.client().put_object(Bucket=store.bucket, Key="a/changing", Body=b"2", IfMatch=etag)
    with pytest.raises(ClientError, match="PreconditionFailed"):
        store.client().put_object(Bucket=store.bucket, Key="a/changing", Body=b"3", IfMatch=etag)
    assert store.read("a/changing") == b"2"


def test_writing_never_creates_a_bucket(store: ObjectStore) -> None:
    with pytest.raises(ClientError, match="NoSuchBucket"):
        store.client().put_object(Bucket="unknown", Key="key", Body=b"")


def test_a_stopped_server_leaves_nothing(tmp_path: Path) -> None:
    with serving_objects(tmp_path) as store:
        assert store.keys() == []
        sockets = re.findall(r"Unix socket (/tmp/\S+)", "".join(log.read_text() for log in tmp_path.glob("*/log")))
        assert all(Path(socket).exists() for socket in sockets)
    assert sockets
    assert not any(Path(socket).exists() for socket in sockets)
    with pytest.raises(ProcessLookupError):
        os.kill(store.process_id, 0)
