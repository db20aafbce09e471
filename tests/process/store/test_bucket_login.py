"""Access to a bucket: errors take one line, and no secret is ever written."""

import logging
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
from killing import python_process
from loopback import closed_url
from places import BucketPlace
from promotions import finished
from tiny_artifacts import build_artifact, finished_run

from tasks.core.store import open_store

OPEN = """
import logging, sys
from tasks.core.errors import CifarFlowError
from tasks.core.store import open_store
from tiny_artifacts import finished_run

logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
logging.getLogger().handlers[0].setLevel(logging.INFO)
try:
    if sys.argv[2] == "run":
        finished_run(sys.argv[1], "one")
    else:
        open_store(sys.argv[1])
except CifarFlowError as error:
    print(type(error).__name__, error.exit_code, error)
"""


def open_in_process(location: str, *, by: str = "open", **variables: str) -> tuple[str, str]:
    """The error line, and everything else that the process writes, including all libraries' log records."""
    with python_process(OPEN, location, by, **variables) as process:
        output, errors = process.communicate()
    assert process.returncode == 0, errors
    return output.strip(), errors


@pytest.mark.parametrize("by", ["open", "run"])
def test_a_wrong_secret_is_reported_on_one_line(bucket: BucketPlace, by: str) -> None:
    wrong = "0123456789abcdef" * 3

    error, noise = open_in_process(bucket.location, by=by, AWS_SECRET_ACCESS_KEY=wrong)

    assert error.startswith(f"InputError 2 store {bucket.location}: access denied; check AWS_")
    assert error.isprintable()
    for hidden in (wrong, bucket.server.access_key, bucket.server.secret):
        assert hidden not in error + noise


def test_an_unknown_key_is_reported_on_one_line(bucket: BucketPlace) -> None:
    error, noise = open_in_process(bucket.location, AWS_ACCESS_KEY_ID="nobody-knows-this")

    assert error.startswith(f"InputError 2 store {bucket.location}: access denied; check AWS_")
    assert error.isprintable()
    assert "nobody-knows-this" not in error + noise
    assert bucket.server.secret not in error + noise


def test_missing_credentials_are_reported_on_one_line(bucket: BucketPlace) -> None:
    error, _ = open_in_process(bucket.location, AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="")

    assert error.split()[0] in ("InputError", "EnvironmentFailure")
    assert f"store {bucket.location}: " in error
    assert "AWS_ACCESS_KEY_ID" in error
    assert error.isprintable()


def test_a_missing_server_is_reported_on_one_line(bucket: BucketPlace) -> None:
    nowhere = closed_url().removesuffix("/archive.tar.gz")

    error, noise = open_in_process(bucket.location, AWS_ENDPOINT_URL=nowhere)

    assert error.startswith(f"EnvironmentFailure 1 store {bucket.location}: ")
    assert "AWS_ENDPOINT_URL" in error
    assert error.isprintable()
    assert bucket.server.access_key not in error + noise
    assert bucket.server.secret not in error + noise


@pytest.mark.parametrize("by", ["open", "run"])
def test_a_missing_bucket_is_reported_on_one_line(bucket: BucketPlace, by: str) -> None:
    error, noise = open_in_process("s3://unknown/prefix", by=by)

    assert error.startswith("InputError 2 store s3://unknown/prefix: there is no such bucket")
    assert error.isprintable()
    assert bucket.server.secret not in error + noise


@pytest.fixture
def everything_logged(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """All loggers at DEBUG; caplog keeps INFO and above."""
    loggers = [logging.getLogger(name) for name in logging.root.manager.loggerDict]
    levels = [(logger, logger.level) for logger in loggers]
    with caplog.at_level(logging.DEBUG):
        caplog.handler.setLevel(logging.INFO)
        for logger in loggers:
            logger.setLevel(logging.DEBUG)
        yield caplog
        for logger, level in levels:
            logger.setLevel(level)


def test_credentials_are_never_written(
    bucket: BucketPlace, tmp_path: Path, everything_logged: pytest.LogCaptureFixture
) -> None:
    finished(bucket, "one")
    finished_run(bucket.location, "two")
    store = bucket.open()
    build_artifact(store, "x", {"a.bin": b"a"})
    open_store(bucket.location)
    logging.getLogger("tests").info("a test record")

    objects, cached = bucket.all(), [path for path in tmp_path.rglob("*") if path.is_file()]
    texts = [*objects, *map(str, cached), everything_logged.text]
    kept = [*objects.values(), *(path.read_bytes() for path in cached), pickle.dumps(store)]
    whole = b"\0".join([*kept, *(text.encode() for text in texts)])
    assert b"a test record" in whole
    assert b"two" in whole
    assert bucket.server.access_key.encode() not in whole
    assert bucket.server.secret.encode() not in whole
