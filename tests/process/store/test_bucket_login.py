"""Who may enter a bucket: what cannot be entered is said in one line, and no secret is ever told."""

import logging
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
from killing import started
from loopback import closed_url
from places import BucketPlace
from promotions import finished
from tiny_artifacts import finished_run, make_artifact

from tasks.core.store import open_store

ENTERING = """
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
        open_store(sys.argv[1], print)
except CifarFlowError as error:
    print(type(error).__name__, error.exit_code, error)
"""


def said_on_entering(location: str, *, by: str = "open", **variables: str) -> tuple[str, str]:
    """What a user is told, and all else that the process writes, log records of every library included."""
    with started(ENTERING, location, by, **variables) as process:
        output, errors = process.communicate()
    assert process.returncode == 0, errors
    return output.strip(), errors


@pytest.mark.parametrize("by", ["open", "run"])
def test_a_wrong_secret_is_told_in_one_line(bucket: BucketPlace, by: str) -> None:
    wrong = "0123456789abcdef" * 3

    told, noise = said_on_entering(bucket.location, by=by, AWS_SECRET_ACCESS_KEY=wrong)

    assert told.startswith(f"InputError 2 store {bucket.location}: access denied; check AWS_")
    assert told.isprintable()
    for hidden in (wrong, bucket.server.access_key, bucket.server.secret):
        assert hidden not in told + noise


def test_an_unknown_key_is_told_in_one_line(bucket: BucketPlace) -> None:
    told, noise = said_on_entering(bucket.location, AWS_ACCESS_KEY_ID="nobody-knows-this")

    assert told.startswith(f"InputError 2 store {bucket.location}: access denied; check AWS_")
    assert told.isprintable()
    assert "nobody-knows-this" not in told + noise
    assert bucket.server.secret not in told + noise


def test_missing_credentials_are_told_in_one_line(bucket: BucketPlace) -> None:
    told, _ = said_on_entering(bucket.location, AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="")

    assert told.split()[0] in ("InputError", "EnvironmentFailure")
    assert f"store {bucket.location}: " in told
    assert "AWS_ACCESS_KEY_ID" in told
    assert told.isprintable()


def test_a_server_that_is_not_there_is_told_in_one_line(bucket: BucketPlace) -> None:
    nowhere = closed_url().removesuffix("/archive.tar.gz")

    told, noise = said_on_entering(bucket.location, AWS_ENDPOINT_URL=nowhere)

    assert told.startswith(f"WorldError 1 store {bucket.location}: ")
    assert "AWS_ENDPOINT_URL" in told
    assert told.isprintable()
    assert bucket.server.access_key not in told + noise
    assert bucket.server.secret not in told + noise


@pytest.mark.parametrize("by", ["open", "run"])
def test_a_bucket_that_is_not_there_is_told_in_one_line(bucket: BucketPlace, by: str) -> None:
    told, noise = said_on_entering("s3://unknown/prefix", by=by)

    assert told.startswith("InputError 2 store s3://unknown/prefix: there is no such bucket")
    assert told.isprintable()
    assert bucket.server.secret not in told + noise


@pytest.fixture
def everything_logged(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """Every logger there is says all that it has to say; what the caplog gets of it is INFO and above."""
    loggers = [logging.getLogger(name) for name in logging.root.manager.loggerDict]
    levels = [(logger, logger.level) for logger in loggers]
    with caplog.at_level(logging.DEBUG):
        caplog.handler.setLevel(logging.INFO)
        for logger in loggers:
            logger.setLevel(logging.DEBUG)
        yield caplog
        for logger, level in levels:
            logger.setLevel(level)


def test_credentials_are_nowhere(
    bucket: BucketPlace, tmp_path: Path, everything_logged: pytest.LogCaptureFixture
) -> None:
    log: list[str] = []
    finished(bucket, "one")
    finished_run(bucket.location, "two", log=log.append)
    store = bucket.open()
    make_artifact(store, "x", {"a.bin": b"a"})
    open_store(bucket.location, log.append)
    logging.getLogger("tests").info("as a sign that records are kept")

    objects, cached = bucket.all(), [path for path in tmp_path.rglob("*") if path.is_file()]
    told = [*objects, *map(str, cached), *log, everything_logged.text]
    kept = [*objects.values(), *(path.read_bytes() for path in cached), pickle.dumps(store)]
    whole = b"\0".join([*kept, *(text.encode() for text in told)])
    assert b"as a sign" in whole
    assert b"two" in whole
    assert bucket.server.access_key.encode() not in whole
    assert bucket.server.secret.encode() not in whole
