"""A real HTTP server on loopback that serves one file, correctly or not."""

import datetime
import ipaddress
import re
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass
class Request:
    """A request that the server received."""

    method: str
    path: str
    headers: Message


@dataclass
class Mirror:
    """A file and the faults of its server, which may be changed between requests."""

    payload: bytes
    url: str = ""
    etag: str | None = None
    last_modified: str | None = None
    status: int | None = None  # sent instead of the file
    redirect_to: str | None = None
    refuses_head: bool = False
    ignores_range: bool = False
    ignores_if_range: bool = False
    hides_length: bool = False
    claims_bytes: int | None = None  # declared length of the file
    shifts_range_by: int = 0
    caps_range_at: int | None = None  # maximum bytes of a 206 response
    content_encoding: str | None = None  # declared only
    bytes_per_s: int | None = None
    breaks_after: int | None = None  # bytes of a response
    stalls_after: int | None = None
    requests: list[Request] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)

    @property
    def host(self) -> str:
        return self.url.split("/")[2]

    def gets(self) -> list[Request]:
        return [request for request in self.requests if request.method == "GET"]

    def ranges(self) -> list[str | None]:
        """The Range header of each GET, in order."""
        return [request.headers["Range"] for request in self.gets()]


@contextmanager
def serving(mirror: Mirror, certificate: Path | None = None) -> Iterator[Mirror]:
    """Serve on a free port, with TLS if given a certificate; sets `mirror.url`."""
    handler = type("Handler", (_Handler,), {"mirror": mirror})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    mirror.url = f"{'https' if certificate else 'http'}://127.0.0.1:{server.server_port}/archive.tar.gz"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield mirror
    finally:
        mirror.closing.set()
        server.shutdown()
        server.server_close()


def closed_url() -> str:
    """A URL on loopback where no server listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/archive.tar.gz"


@contextmanager
def silent_url() -> Iterator[str]:
    """A URL on loopback that accepts connections and never responds."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/archive.tar.gz"


def make_certificate(path: Path) -> Path:
    """Write a self-signed certificate for 127.0.0.1, with its key; SSL_CERT_FILE makes a client trust it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "loopback")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(certificate.public_bytes(pem) + secret)
    return path


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    mirror: Mirror

    def do_HEAD(self) -> None:
        self._record()
        if self.mirror.refuses_head:
            self._respond(405, {"Content-Length": "0"})
        else:
            self._respond(200, {"Content-Length": str(len(self.mirror.payload))})

    def do_GET(self) -> None:
        self._record()
        mirror = self.mirror
        offset = self._offset()
        if mirror.redirect_to:
            self._respond(302, {"Location": mirror.redirect_to, "Content-Length": "0"})
        elif mirror.status:
            self._respond(mirror.status, {"Content-Length": "0"})
        elif offset is None:
            self._respond(200, self._length(mirror.claims_bytes or len(mirror.payload)))
            self._send(mirror.payload)
        elif offset >= len(mirror.payload):
            self._respond(416, {"Content-Length": "0", "Content-Range": f"bytes */{len(mirror.payload)}"})
        else:
            offset += mirror.shifts_range_by
            piece = mirror.payload[offset:][: mirror.caps_range_at]
            last, total = offset + len(piece) - 1, len(mirror.payload)
            self._respond(206, self._length(len(piece)) | {"Content-Range": f"bytes {offset}-{last}/{total}"})
            self._send(piece)

    def _record(self) -> None:
        self.mirror.requests.append(Request(self.command, self.path, self.headers))

    def _offset(self) -> int | None:
        """The requested first byte, or None for the whole file."""
        mirror = self.mirror
        requested = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        if not requested or mirror.ignores_range:
            return None
        condition = self.headers["If-Range"]
        if condition and not mirror.ignores_if_range and condition not in (mirror.etag, mirror.last_modified):
            return None
        return int(requested[1])

    def _length(self, count: int) -> dict[str, str]:
        return {"Connection": "close"} if self.mirror.hides_length else {"Content-Length": str(count)}

    def _respond(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        mirror = self.mirror
        optional = {
            "ETag": mirror.etag,
            "Last-Modified": mirror.last_modified,
            "Content-Encoding": mirror.content_encoding,
        }
        for name, value in (headers | optional).items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()

    def _send(self, body: bytes) -> None:
        mirror = self.mirror
        ends = [end for end in (mirror.breaks_after, mirror.stalls_after) if end is not None]
        end = min([len(body), *ends])
        step = max(1, mirror.bytes_per_s // 50) if mirror.bytes_per_s else 65536
        try:
            for start in range(0, end, step):
                self.wfile.write(body[start : min(start + step, end)])
                if mirror.bytes_per_s and mirror.closing.wait(step / mirror.bytes_per_s):
                    return
        except ConnectionError:
            self.close_connection = True
        if mirror.stalls_after is not None:
            mirror.closing.wait(60)
        if ends or mirror.hides_length:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Do not log."""
