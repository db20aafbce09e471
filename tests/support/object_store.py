"""A real S3-compatible server (SeaweedFS) on loopback with a bucket, a key and a secret."""

import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

WEED = Path(sys.executable).with_name("weed")
PARTS = ("master", "volume", "filer", "s3")
PORTS = tuple(f"{part}.port{kind}" for part in PARTS for kind in ("", ".grpc"))
PORT_RANGE = range(10_000, 30_000)  # below the kernel's ephemeral ports
OPTIONS = (
    *("-logtostderr=true", "server", "-dir=.", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
    *("-s3", "-s3.config=s3.json", "-s3.port.iceberg=0", "-s3.port.lance=0"),
    *("-s3.localSocket=s3.sock", "-filer.localSocket=filer.sock"),
    *("-volume.max=100", "-master.volumeSizeLimitMB=64"),  # a bucket takes 7 volumes at once
    "-master.peers=none",  # saves a second of waiting
    "-master.telemetry=false",
    "-s3.autoCreateBucket=false",  # as S3
)
# One core is left to the tests, and the garbage collector runs rarely: the server then takes a third of its usual time.
RUNTIME = {"GOMAXPROCS": "1", "GOGC": "400", "GOMEMLIMIT": "512MiB"}
PATIENCE_S = 60
# Variables that would override `ObjectStore.environment`.
UNSET = ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS")


@dataclass(frozen=True)
class ObjectStore:
    """A bucket on a running server, read and damaged without the code under test."""

    endpoint: str
    access_key: str
    secret: str
    bucket: str
    process_id: int  # to stop or kill it

    @property
    def environment(self) -> dict[str, str]:
        """The variables that a user sets for this server, and those that keep other settings away."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "NO_PROXY": "127.0.0.1",
        }

    def client(self, secret: str | None = None) -> Any:
        """A botocore client that ignores the credentials in the environment."""
        return botocore.session.Session().create_client(
            "s3",
            region_name="us-east-1",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=secret or self.secret,
            config=Config(retries={"total_max_attempts": 1}, read_timeout=20, proxies={}),
        )

    def make_bucket(self) -> None:
        self._client.create_bucket(Bucket=self.bucket)

    def keys(self, prefix: str = "") -> list[str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        return [found["Key"] for page in pages for found in page.get("Contents", [])]

    def all(self, prefix: str) -> dict[str, bytes]:
        """The objects whose keys begin with a prefix; content is cached by ETag."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        etags = {found["Key"]: found["ETag"] for page in pages for found in page.get("Contents", [])}
        self._contents.update({etag: self.read(key) for key, etag in etags.items() if etag not in self._contents})
        return {key: self._contents[etag] for key, etag in etags.items()}

    def read(self, key: str) -> bytes:
        content: bytes = self._client.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        return content

    def write(self, key: str, content: bytes) -> None:
        self._client.put_object(Bucket=self.bucket, Key=key, Body=content)

    def delete(self, key: str) -> None:
        self._client.delete_object(Bucket=self.bucket, Key=key)

    def unfinished_uploads(self) -> list[str]:
        """The keys of open multipart uploads."""
        return [upload["Key"] for upload in self._client.list_multipart_uploads(Bucket=self.bucket).get("Uploads", [])]

    @cached_property
    def _client(self) -> Any:
        return self.client()

    @cached_property
    def _contents(self) -> dict[str, bytes]:
        return {}


@contextmanager
def serving_objects(folder: Path) -> Iterator[ObjectStore]:
    """Serve an empty bucket from the new folder `folder`; it starts in 2 to 3 s, and stops with the block."""
    for attempt in range(5):
        with _started(folder / str(attempt)) as store:
            if store:
                yield store
                return
    raise AssertionError(f"the object store did not come up: see {folder}/*/log")


@contextmanager
def _started(folder: Path) -> Iterator[ObjectStore | None]:
    """None if the server ended by itself, as it does if another process took one of its ports."""
    folder.mkdir(parents=True)
    ports = _free_ports()
    access_key, secret = secrets.token_hex(10), secrets.token_hex(20)
    (folder / "s3.json").write_text(_identities(access_key, secret))
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [WEED, *OPTIONS, *(f"-{option}={port}" for option, port in ports.items())],
            cwd=folder,
            env={"HOME": str(folder), "TMPDIR": str(folder), **RUNTIME},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    store = ObjectStore(f"http://127.0.0.1:{ports['s3.port']}", access_key, secret, "tests", server.pid)
    try:
        yield store if _is_up(store, server) else None
    finally:
        server.kill()  # has no children
        server.wait()
        for part in PARTS:  # all that it writes outside its folder
            Path(f"/tmp/seaweedfs-{part}-grpc-{ports[f'{part}.port.grpc']}.sock").unlink(missing_ok=True)


def _identities(access_key: str, secret: str) -> str:
    credentials = {"accessKey": access_key, "secretKey": secret}
    identity = {"name": "tests", "credentials": [credentials], "actions": ["Admin", "Read", "Write", "List"]}
    return json.dumps({"identities": [identity]})


def _free_ports() -> dict[str, int]:
    """A free port for each option; the default gRPC ports may be taken."""
    ports: dict[str, int] = {}
    with ExitStack() as taken:
        while len(ports) < len(PORTS):
            port = secrets.choice(PORT_RANGE)
            try:
                taken.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError:
                continue
            ports[PORTS[len(ports)]] = port
    return ports


def _is_up(store: ObjectStore, server: subprocess.Popen[bytes]) -> bool:
    """Wait until the bucket takes objects; False if the server ends before."""
    steps = [store.make_bucket, lambda: store.write("first", b""), lambda: store.delete("first")]
    deadline = time.monotonic() + PATIENCE_S
    while steps and server.poll() is None and time.monotonic() < deadline:
        try:
            steps[0]()
        except (BotoCoreError, ClientError):
            time.sleep(0.02)
        else:
            del steps[0]
    return not steps
