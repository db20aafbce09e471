"""Renders self-contained HTML pages from their templates."""

import hashlib
from base64 import b64encode
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, meta

TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, script: str | None = None, **context: Any) -> str:
    """Render a page; a browser runs no script in it but `script`, a file next to the template."""
    code = (TEMPLATES / script).read_text(encoding="utf-8") if script else ""
    digest = b64encode(hashlib.sha256(code.encode()).digest()).decode()
    return ENVIRONMENT.get_template(template).render(script=code, script_digest=digest, **context)


def digests(template: str, script: str | None = None) -> dict[str, str]:
    """Return the SHA-256 of each file that a page is rendered from, by its path in the project."""
    names, waiting = set[str](), [template, *([script] if script else [])]
    while waiting:
        name = waiting.pop()
        names.add(name)
        if name.endswith(".j2"):
            source = ENVIRONMENT.parse((TEMPLATES / name).read_text(encoding="utf-8"))
            waiting += [each for each in meta.find_referenced_templates(source) if each and each not in names]
    return {
        f"tasks/core/reports/templates/{name}": hashlib.sha256((TEMPLATES / name).read_bytes()).hexdigest()
        for name in sorted(names)
    }


def percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"


def interval(low: float | None, high: float | None) -> str:
    return "–" if low is None or high is None else f"{low * 100:.1f}–{high * 100:.1f}%"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes else f"{seconds:.1f} s"


def _moment(iso_time: str) -> str:
    moment = datetime.fromisoformat(iso_time)
    return f"{moment:%Y-%m-%d %H:%M:%S} {moment.tzname() or ''}".rstrip()


ENVIRONMENT = Environment(
    loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
ENVIRONMENT.filters |= {
    "percent": percent,
    "interval": interval,
    "number": "{:.3f}".format,
    "many": "{:,}".format,
    "duration": _duration,
    "moment": _moment,
}
