"""The settings of a run, validated when they are created."""

import os
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, JsonValue, ValidationError, create_model, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from tasks.core.errors import InputError
from tasks.core.frozen_model import FrozenModel
from tasks.core.recipes import RECIPES, Recipe, RecipeName

PROJECT = Path(__file__).resolve().parents[2]
STORE_VARIABLE = "CIFAR_FLOW_STORE"
CACHE_VARIABLE = "CIFAR_FLOW_CACHE"

StageName = Literal["download", "normalize", "train", "evaluate", "report"]
Promote = Literal["auto", "always", "never"]
ExportFormat = Literal["onnx", "exported-program", "safetensors"]

NAMED_SOURCES = ("cifar10", "synthetic")
TYPES = {"int": "an integer", "float": "a number", "bool": "true or false", "string": "text"}
LIMITS = {"exclusiveMinimum": "more than", "minimum": "at least", "maximum": "at most", "exclusiveMaximum": "less than"}
TEXT_FORMATS = {
    "device": "auto, cpu, cuda, cuda:N or mps",
    "model": "package.module:factory",
    "sha256": "64 lower-case hex digits",
}


class Normalization(FrozenModel):
    """The normalization of bytes to network inputs, per channel (RGB): (byte / 255 - mean) / std."""

    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)


def is_url(source: str) -> bool:
    return source.startswith(("http://", "https://"))


def strip_credentials(source: str) -> str:
    """Return a source that is safe to show: a URL without user, password and query."""
    if "://" not in source:
        return source
    parts = urlsplit(source)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"


def _validate_source(source: str) -> str:
    if source in NAMED_SOURCES:
        return source
    if not is_url(source):
        return _absolute_path(source)
    with suppress(ValueError):  # from urlsplit
        if urlsplit(source).hostname and urlsplit(source).port != 0:
            return source
    raise ValueError(f"expected a URL with a host and a port, got {_show(strip_credentials(source))}")


def _absolute_path(text: str) -> str:
    try:
        return str(Path(text).expanduser().resolve())
    except RuntimeError as error:
        raise ValueError(f"expected a path, got {_show(text)}: {error}") from None


def is_bucket(location: str) -> bool:
    return location.startswith("s3://")


def _validate_store(store: str) -> str:
    """Return a folder's absolute path, or the URL of a bucket; errors do not show credentials."""
    prefix = store.removeprefix("s3://")
    if is_bucket(store) and urlsplit(store).netloc and not set("@?#:*[]") & set(prefix):
        return "s3://" + "/".join(filter(None, prefix.split("/")))
    if not store or "://" in store:
        shown = _show(strip_credentials(store))
        raise ValueError(f"expected a folder or s3://bucket/prefix without credentials, got {shown}")
    return _absolute_path(store)


def _show(value: object) -> str:
    """Return a value as text in one line; quoted if it is empty, or not printable as it is."""
    text = str(value)
    return text if text.isprintable() and text.strip() == text != "" else repr(value)


class _RunSettings(FrozenModel):
    """The settings of a run that are not part of its recipe."""

    source: Annotated[str, AfterValidator(_validate_source)] = Field(
        "cifar10",
        description="Where the images come from: cifar10 (official archive), synthetic (generated images), "
        "or a path or https:// URL of an archive in the official layout.",
    )
    sha256: str | None = Field(
        None,
        pattern="^[0-9a-f]{64}$",
        description="Refuse the archive unless it has this SHA-256 (64 lower-case hex digits).",
    )
    recipe: RecipeName = Field("tutorial", description="The training recipe.")
    seed: int = Field(
        1, ge=0, le=2**32 - 1, description="Seed of the initial weights, the order of the images and the augmentation."
    )
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$",
        description="auto, cpu, cuda, cuda:N or mps; auto takes the first available of CUDA, MPS and CPU.",
    )
    devices: int = Field(
        1, ge=1, le=1_024, description="Number of devices that train together; each processes its share of every batch."
    )
    deterministic: bool = Field(
        False,
        description="Train only with deterministic algorithms, so that a GPU repeats its results; this is slower.",
    )
    validation: int = Field(0, ge=0, description="Number of training images that are held out to evaluate each epoch.")
    store: Annotated[str, AfterValidator(_validate_store)] | None = Field(
        None,
        description="Folder of the artifacts, or s3://bucket/prefix; "
        f"if unset, {STORE_VARIABLE} or the project's artifacts folder.",
    )
    refresh: StageName | None = Field(None, description="Rebuild the artifacts of this task even on a cache hit.")
    promote: Promote = Field(
        "auto", description="Whether the finished run becomes the current run; auto lets the promotion gate decide."
    )
    tolerance: float = Field(
        1.0,
        ge=0,
        le=100,
        description="Percentage points of accuracy below the best run at which the promotion gate refuses a run.",
    )
    offline_fallback: Literal["synthetic"] | None = Field(
        None, description="What to use if the archive cannot be downloaded; if unset, the run fails."
    )


def _optional_field(field: FieldInfo) -> tuple[Any, Any]:
    value_type: Any = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
    description = f"{(field.description or '').rstrip('.')}; if unset, the value of the recipe."
    return value_type | None, Field(None, description=description)


OVERRIDES = {name: _optional_field(field) for name, field in Recipe.model_fields.items() if name != "name"}

if TYPE_CHECKING:
    _WithOverrides = _RunSettings
else:
    _WithOverrides = create_model("_WithOverrides", __base__=_RunSettings, **OVERRIDES)


class Settings(_WithOverrides):
    """All settings of a run: its own, and those that override the recipe."""

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        is_known = self.source in NAMED_SOURCES or is_url(self.source)
        is_available = is_known or os.path.isfile(self.source)  # noqa: PTH113 - pathlib raises on names that are too long
        if not is_available and not self.sha256:  # the store may have a copy with this SHA-256
            expected = "cifar10, synthetic, an https:// URL or an existing archive"
            raise ValueError(f"--source: expected {expected}, got {_show(self.source)}")
        if self.sha256 and self.source in NAMED_SOURCES:
            raise ValueError(f"--sha256 needs an archive of your own, but --source is {self.source}; omit one of them")
        recipe = self.resolve_recipe()
        if recipe.batch_size % self.devices:
            raise ValueError(
                f"--batch-size {recipe.batch_size} is not a multiple of --devices {self.devices}; change one of them"
            )
        if recipe.nesterov and not recipe.momentum:
            raise ValueError("--nesterov needs momentum, but --momentum is 0; change one of them")
        if self.source.startswith("http://") and not self.sha256 and not is_loopback(self.source):
            shown = strip_credentials(self.source)
            raise ValueError(f"--source: expected https:// or --sha256, got plain http without a checksum: {shown}")
        return self

    def resolve_recipe(self) -> Recipe:
        """Return the named recipe with the overrides of this run."""
        overrides = {name: value for name in OVERRIDES if (value := getattr(self, name)) is not None}
        return Recipe.model_validate(RECIPES[self.recipe].model_dump() | overrides)

    def to_record(self) -> dict[str, JsonValue]:
        """Return the settings for the run record, without the credentials of a URL."""
        values: dict[str, JsonValue] = self.model_dump(mode="json")
        return {**values, "source": strip_credentials(self.source)}


def store_location(store: str | None) -> str:
    """Return the store's location: the given one, CIFAR_FLOW_STORE, or the project's artifacts folder."""
    location = store or os.environ.get(STORE_VARIABLE)
    try:
        if location and not (store or is_bucket(location) or Path(location).is_absolute()):
            raise ValueError(f"expected an absolute path or s3://bucket/prefix, got {_show(location)}")
        if location:
            return _validate_store(location)
    except ValueError as error:
        raise InputError(f"{'--store' if store else STORE_VARIABLE}: {error}") from None
    if not (PROJECT / "pyproject.toml").is_file():
        expected, advice = f"the project's folder at {PROJECT}", f"give it or set {STORE_VARIABLE}"
        raise InputError("--store", expected=expected, got="none", advice=advice)
    return str(PROJECT / "artifacts")


def cache_folder() -> Path:
    """Return the folder for this machine's copies of objects in a bucket, and for its locks."""
    general = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get(CACHE_VARIABLE) or general / "cifar-flow").absolute()


def validate_settings(**values: object) -> Settings:
    """Return settings, or raise an InputError that names every wrong value in one line."""
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise InputError(format_validation_error(error)) from None


def format_validation_error(error: ValidationError) -> str:
    """Return all problems of settings in one line, each as `--epochs: expected 1 to 500, got 0`."""
    return "; ".join(map(_format_problem, error.errors()))


def _format_problem(problem: ErrorDetails) -> str:
    kind, name = problem["type"], ".".join(map(str, problem["loc"]))
    option = f"--{name.replace('_', '-')}: " if name else ""
    if kind == "value_error":
        return f"{option}{problem['ctx']['error']}"
    if name not in Settings.model_fields:
        return f"{option}unknown setting"
    if kind == "literal_error":
        expected = problem["ctx"]["expected"].replace("'", "")
    else:
        expected = TEXT_FORMATS.get(name) or TYPES.get(kind.partition("_")[0]) or _allowed_range(name)
    return f"{option}expected {expected}, got {_show(problem['input'])}"


def _allowed_range(name: str) -> str:
    """Return the range of a number in words, from its JSON schema: `1 to 500`."""
    schema = Settings.model_json_schema()["properties"][name]
    schema = schema.get("anyOf", [schema])[0]
    if {"minimum", "maximum"} <= schema.keys():
        return f"{schema['minimum']} to {schema['maximum']}"
    return " and ".join(f"{words} {schema[limit]}" for limit, words in LIMITS.items() if limit in schema)
