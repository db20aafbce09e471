"""Every setting: frozen, and checked when it is made."""

import os
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    Field,
    JsonValue,
    ValidationError,
    create_model,
    model_validator,
)
from pydantic.fields import FieldInfo

from tasks.core.errors import InputError
from tasks.core.frozen_model import FrozenModel
from tasks.core.recipes import RECIPES, Recipe, RecipeName

PROJECT = Path(__file__).resolve().parents[2]
STORE_VARIABLE = "CIFAR_FLOW_STORE"
CACHE_VARIABLE = "CIFAR_FLOW_CACHE"

StageName = Literal["download", "normalize", "train", "evaluate", "report"]
Promote = Literal["auto", "always", "never"]
ExportFormat = Literal["onnx", "exported-program", "safetensors"]


class Normalization(FrozenModel):
    """What turns bytes into network inputs: (byte / 255 - mean) / std for each of the channels red, green, blue."""

    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)


def is_url(source: str) -> bool:
    return source.startswith(("http://", "https://"))


def strip_credentials(source: str) -> str:
    """A source that can be shown: a URL loses its user, password and query."""
    if not is_url(source):
        return source
    parts = urlsplit(source)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _known_source(source: str) -> str:
    if source in ("cifar10", "synthetic"):
        return source
    if is_url(source):
        try:
            usable = urlsplit(source).hostname and urlsplit(source).port != 0
        except ValueError:
            usable = False
        if not usable:
            raise ValueError(f"expected a URL with a host and a port, got {strip_credentials(source)!r}")
        return source
    return _path(source)


def _path(text: str) -> str:
    try:
        return str(Path(text).expanduser().resolve())
    except RuntimeError as error:
        raise ValueError(f"expected a path, got {text!r}: {error}") from None


def is_bucket(location: str) -> bool:
    return location.startswith("s3://")


def _location(store: str) -> str:
    """A folder's absolute path, or the URL of a bucket as it is; what could carry credentials is not shown."""
    parts = urlsplit(store)
    if is_bucket(store) and parts.netloc and not set("@?#:*[]") & set(store.removeprefix("s3://")):
        return "s3://" + "/".join(part for part in store.removeprefix("s3://").split("/") if part)
    if not store or "://" in store:
        shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}" if store else ""
        raise ValueError(f"expected a folder or s3://bucket/prefix without credentials, got {shown!r}")
    return _path(store)


class _RunSettings(FrozenModel):
    """The settings that a run has beside those of its recipe."""

    source: Annotated[str, AfterValidator(_known_source)] = Field(
        "cifar10",
        description="Where the images come from: cifar10 (the official archive), synthetic (generated images), "
        "or a path or https:// URL of an archive in the official layout.",
    )
    sha256: str | None = Field(
        None,
        pattern="^[0-9a-f]{64}$",
        description="Accept the archive only with this SHA-256 (64 lower-case hex digits).",
    )
    recipe: RecipeName = Field("tutorial", description="The training recipe.")
    seed: int = Field(
        1, ge=0, lt=2**32, description="Fixes the first weights, the order of the images, and what else is drawn."
    )
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$",
        description="auto, cpu, cuda, cuda:N or mps; auto takes CUDA, then MPS, then the CPU.",
    )
    devices: int = Field(
        1, ge=1, le=1_024, description="How many devices of that kind train together, each on its share of a batch."
    )
    deterministic: bool = Field(
        False, description="Train with algorithms alone that repeat themselves to the bit on a GPU too; slower there."
    )
    validation: int = Field(
        0, ge=0, description="How many training images are held out to measure each epoch on; of each class its share."
    )
    store: Annotated[str, AfterValidator(_location)] | None = Field(
        None,
        description="The folder of the artifacts, or s3://bucket/prefix; "
        f"{STORE_VARIABLE} or the project's artifacts folder if unset.",
    )
    refresh: StageName | None = Field(None, description="Run this task again although its result could be reused.")
    promote: Promote = Field(
        "auto",
        description="Whether the finished run replaces the promoted one: auto never puts a lesser dataset in a better "
        "one's place, nor a run that is really worse than the best one.",
    )
    tolerance: float = Field(
        1.0,
        ge=0,
        le=100,
        description="How many points of accuracy a run may lie below the best one: more, by the whole 95% interval of "
        "the difference, and --promote auto refuses it.",
    )
    offline_fallback: Literal["synthetic"] | None = Field(
        None, description="What to use when the archive cannot be fetched; without it, that ends the run."
    )


def _override(field: FieldInfo) -> tuple[Any, Any]:
    """A recipe's field as an optional setting of a run."""
    checked: Any = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
    return checked | None, Field(None, description=f"{(field.description or '').rstrip('.')}; the recipe's if unset.")


OVERRIDES = {name: _override(field) for name, field in Recipe.model_fields.items() if name != "name"}

if TYPE_CHECKING:
    _WithOverrides = _RunSettings
else:
    _WithOverrides = create_model("_WithOverrides", __base__=_RunSettings, **OVERRIDES)


class Settings(_WithOverrides):
    """What one run of the pipeline is asked to do: its own settings, then those that override its recipe's."""

    @model_validator(mode="after")
    def _combinations(self) -> Self:
        shown = strip_credentials(self.source)
        named = self.source in ("cifar10", "synthetic") or is_url(self.source)
        found = named or os.path.isfile(self.source)  # noqa: PTH113 - pathlib's raises where a name is too long
        if not found and not self.sha256:  # with a pin the store may have a copy
            raise ValueError(f"source: expected cifar10, synthetic, an https:// URL or an archive, got {self.source!r}")
        if self.sha256 and self.source in ("cifar10", "synthetic"):
            raise ValueError(f"sha256 pins an archive of your own, but source is {self.source!r}; give one of the two")
        recipe = self.resolve_recipe()
        if recipe.batch_size % self.devices:
            raise ValueError(f"batch_size {recipe.batch_size} does not divide among devices {self.devices}; change one")
        if recipe.nesterov and not recipe.momentum:
            raise ValueError("nesterov looks ahead along the momentum, but momentum is 0; change one")
        if self.source.startswith("http://") and not self.sha256 and not is_loopback(self.source):
            raise ValueError(f"source {shown!r} is plain http and sha256 is unset; use https:// or give --sha256")
        return self

    def resolve_recipe(self) -> Recipe:
        """The named recipe with this run's own values in their places."""
        own = {name: value for name in OVERRIDES if (value := getattr(self, name)) is not None}
        return Recipe.model_validate(RECIPES[self.recipe].model_dump() | own)

    def to_record(self) -> dict[str, JsonValue]:
        """The settings for a run's record, without the credentials that a URL may carry."""
        values: dict[str, JsonValue] = self.model_dump(mode="json")
        return {**values, "source": strip_credentials(self.source)}


def store_location(store: str | None) -> str:
    """Where the artifacts live: never in the current folder of whoever started the run."""
    chosen = os.environ.get(STORE_VARIABLE)
    try:
        if store:
            return _location(store)
        if chosen and not is_bucket(chosen) and not Path(chosen).is_absolute():
            raise ValueError(f"expected an absolute path or s3://bucket/prefix, got {chosen!r}")
        if chosen:
            return _location(chosen)
    except ValueError as error:
        raise InputError(f"{'store' if store else STORE_VARIABLE}: {error}") from None
    if not (PROJECT / "pyproject.toml").is_file():
        raise InputError(f"store: the project's folder is not at {PROJECT}; give --store or set {STORE_VARIABLE}")
    return str(PROJECT / "artifacts")


def cache_folder() -> Path:
    """Where this machine keeps its copies of what is in a bucket, and its locks on it."""
    general = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get(CACHE_VARIABLE) or Path(general) / "cifar-flow").absolute()


def validate_settings(**values: object) -> Settings:
    """Settings, or an `InputError` of one line that names what is wrong."""
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise InputError(format_validation_error(error)) from None


def format_validation_error(error: ValidationError) -> str:
    """All that pydantic found, as `name: what it expected`, on one line."""
    found = []
    for problem in error.errors():
        name = ".".join(str(part) for part in problem["loc"])
        own_words = problem["msg"].removeprefix("Value error, ")
        if own_words == problem["msg"]:
            own_words = f"{own_words}, got {problem['input']!r}"
        found.append(f"{name}: {own_words}" if name else own_words)
    return "; ".join(found)
