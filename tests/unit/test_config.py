"""Settings: validation, error messages, run records, and the location of the store."""

from pathlib import Path
from typing import get_args

import pytest
from pydantic import ValidationError

from tasks.core.config import PROJECT, STORE_VARIABLE, Settings, store_location, validate_settings
from tasks.core.errors import InputError
from tasks.core.recipes import RECIPES, Recipe, RecipeName

SHA256 = "ab" * 32
HTTPS = "https://example.org/archive.tar.gz"


@pytest.fixture(autouse=True)
def no_store_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(STORE_VARIABLE, raising=False)


def refusal(**values: object) -> str:
    """Return the message with which settings are refused: always one printable line."""
    with pytest.raises(InputError) as caught:
        validate_settings(**values)
    assert str(caught.value).isprintable()
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_the_defaults_are_the_tutorial_on_cifar10() -> None:
    settings = validate_settings()
    assert (settings.source, settings.seed, settings.device, settings.promote) == ("cifar10", 1, "auto", "auto")
    assert settings.resolve_recipe() == Recipe(
        name="tutorial",
        model="tasks.core.models.tutorial_net:Net",
        epochs=2,
        batch_size=4,
        learning_rate=0.001,
        momentum=0.9,
    )


@pytest.mark.parametrize(
    ("name", "lowest", "highest"), [("epochs", 1, 500), ("batch_size", 1, 10_000), ("seed", 0, 2**32 - 1)]
)
def test_counts_outside_their_range_are_refused(name: str, lowest: int, highest: int) -> None:
    for value in (lowest, highest):
        assert getattr(validate_settings(**{name: value}), name) == value
    for value in (lowest - 1, highest + 1):
        option = f"--{name.replace('_', '-')}"
        assert refusal(**{name: value}) == f"{option}: expected {lowest} to {highest}, got {value}"


def test_the_learning_rate_is_more_than_zero_and_at_most_ten() -> None:
    for value in (1e-9, 10.0):
        assert validate_settings(learning_rate=value).learning_rate == value
    for value in (0, -0.1, 10.01, float("inf"), float("nan")):
        assert refusal(learning_rate=value) == f"--learning-rate: expected more than 0 and at most 10, got {value}"


@pytest.mark.parametrize(
    ("name", "value", "choice"),
    [
        ("recipe", "tutoral", "tutorial"),
        ("promote", "maybe", "always"),
        ("refresh", "training", "train"),
        ("offline_fallback", "cifar10", "synthetic"),
        ("nesterov", "perhaps", "true or false"),
        ("momentum", "much", "a number"),
        ("model", "net", "package.module:factory"),
        ("source", 3, "text"),
        ("epochs", 2.5, "integer"),
        ("epochs", "many", "integer"),
        ("seed", None, "integer"),
    ],
)
def test_a_wrong_value_is_refused_with_the_right_ones(name: str, value: object, choice: str) -> None:
    message = refusal(**{name: value})
    assert message.startswith(f"--{name.replace('_', '-')}: expected ")
    assert choice in message
    assert message.endswith(f", got {value}")


def test_every_stage_can_be_refreshed() -> None:
    for stage in ("download", "normalize", "train", "evaluate", "report"):
        assert validate_settings(refresh=stage).refresh == stage


def test_a_misspelt_name_is_refused_and_named() -> None:
    assert refusal(epohcs=3) == "--epohcs: unknown setting"
    with pytest.raises(ValidationError, match="epoch"):
        Recipe.model_validate({**RECIPES["tutorial"].model_dump(), "epoch": 3})


@pytest.mark.parametrize("device", ["auto", "cpu", "mps", "cuda", "cuda:0", "cuda:12"])
def test_devices_are_named_as_in_torch(device: str) -> None:
    assert validate_settings(device=device).device == device


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:-1", "CPU"])
def test_other_devices_are_refused(device: str) -> None:
    assert refusal(device=device) == f"--device: expected auto, cpu, cuda, cuda:N or mps, got {device}"


@pytest.mark.parametrize("device", ["cuda:0\n", " cpu", "\x1b[31mcpu", ""])
def test_a_value_that_is_not_visible_as_it_is_is_quoted(device: str) -> None:
    assert refusal(device=device).endswith(f"got {device!r}")


@pytest.mark.parametrize("sha256", ["", "ab" * 31, "ab" * 33, "AB" * 32, "xy" * 32, "ab" * 32 + "\n"])
def test_a_checksum_is_64_lower_case_hex_digits(sha256: str) -> None:
    message = refusal(source=HTTPS, sha256=sha256)
    assert message.startswith("--sha256: expected 64 lower-case hex digits, got ")
    assert message.endswith((sha256, repr(sha256)))


@pytest.mark.parametrize("source", ["cifar10", "synthetic"])
def test_a_checksum_for_a_named_source_is_refused(source: str) -> None:
    message = refusal(source=source, sha256=SHA256)
    assert "--sha256" in message
    assert f"--source is {source};" in message


def test_several_mistakes_are_reported_in_one_line() -> None:
    message = refusal(epochs=0, seed=-1, recipe="fats")
    assert all(f"--{name}: " in message for name in ("epochs", "seed", "recipe"))
    assert all(f"got {value}" in message for value in ("0", "-1", "fats"))


def test_every_setting_of_every_recipe_can_be_overridden() -> None:
    assert set(RECIPES) == set(get_args(RecipeName))
    for name, recipe in RECIPES.items():
        assert recipe.name == name
        own = recipe.model_dump(exclude={"name"})
        assert validate_settings(**own).resolve_recipe() == recipe.model_copy(update={"name": "tutorial"})


def test_overrides_have_the_descriptions_and_limits_of_the_recipe() -> None:
    properties = Settings.model_json_schema()["properties"]
    for name, field in Recipe.model_fields.items():
        if name != "name":
            assert field.description
            assert properties[name]["description"].startswith(field.description.rstrip("."))
            assert properties[name]["default"] is None
    assert properties["shift"]["anyOf"][0] == {"type": "integer", "minimum": 0, "maximum": 16}


def test_a_batch_that_does_not_divide_among_devices_is_refused() -> None:
    assert refusal(devices=3) == "--batch-size 4 is not a multiple of --devices 3; change one of them"
    assert validate_settings(devices=3, batch_size=6).devices == 3


@pytest.mark.parametrize("recipe", ["resnet18", "fast"])
def test_nesterov_without_momentum_is_refused(recipe: str) -> None:
    with pytest.raises(InputError, match="--nesterov needs momentum, but --momentum is 0; change one of them"):
        validate_settings(recipe=recipe, momentum=0)
    validate_settings(recipe=recipe, momentum=0, nesterov=False)


def test_settings_and_recipes_are_immutable() -> None:
    with pytest.raises(ValidationError):
        validate_settings().epochs = 3  # type: ignore[misc]
    with pytest.raises(ValidationError):
        RECIPES["tutorial"].epochs = 3  # type: ignore[misc]


def test_overrides_replace_only_their_values_of_the_recipe() -> None:
    tutorial = RECIPES["tutorial"]
    assert validate_settings(epochs=7).resolve_recipe() == tutorial.model_copy(update={"epochs": 7})
    own = {"epochs": 3, "batch_size": 64, "learning_rate": 0.05}
    assert validate_settings(**own).resolve_recipe() == tutorial.model_copy(update=own)
    assert tutorial.epochs == 2


# Sources


def test_a_path_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own.tar.gz").touch()
    monkeypatch.chdir(tmp_path)
    assert validate_settings(source="own.tar.gz").source == str(tmp_path / "own.tar.gz")


def test_a_path_may_begin_with_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own.tar.gz").touch()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert validate_settings(source="~/own.tar.gz").source == str(tmp_path / "own.tar.gz")


def test_a_missing_archive_is_refused_with_its_path(tmp_path: Path) -> None:
    missing = tmp_path / "missing.tar.gz"
    message = refusal(source=str(missing))
    assert message.startswith("--source: expected ")
    assert message.endswith(f"got {missing}")
    assert "expected" in refusal(source=str(tmp_path))


def test_a_missing_archive_with_a_checksum_is_accepted(tmp_path: Path) -> None:
    assert validate_settings(source=str(tmp_path / "gone.tar.gz"), sha256=SHA256).sha256 == SHA256


@pytest.mark.parametrize("source", ["a" * 300, "~no-such-user-here/own.tar.gz", "own\0.tar.gz"])
def test_an_impossible_path_is_refused_like_a_missing_one(source: str) -> None:
    assert "source" in refusal(source=source)


def test_plain_http_needs_a_checksum_or_loopback() -> None:
    message = refusal(source="http://example.org/a.tar.gz")
    assert "http://example.org/a.tar.gz" in message
    assert "expected https:// or --sha256" in message
    assert validate_settings(source="http://example.org/a.tar.gz", sha256=SHA256).sha256 == SHA256
    for host in ("127.0.0.1:8000", "localhost", "[::1]:8000"):
        assert validate_settings(source=f"http://{host}/a.tar.gz").sha256 is None


@pytest.mark.parametrize(
    "host", ["127.0.0.1.example.org", "localhost.example.org", "localhost@example.org", "10.0.0.1"]
)
def test_a_host_that_only_looks_like_loopback_is_refused(host: str) -> None:
    assert "plain http" in refusal(source=f"http://{host}/a.tar.gz")


@pytest.mark.parametrize(
    "source", ["https://", "https:///a.tar.gz", "https://[::1/a.tar.gz", "https://example.org:99999/a", "https://h:x/a"]
)
def test_a_url_without_a_usable_host_and_port_is_refused(source: str) -> None:
    assert refusal(source=source).startswith("--source: ")


# Run records


def test_the_record_has_every_setting_and_no_credentials() -> None:
    url = "https://me:hunter2@example.org:8443/sets/own.tar.gz?signature=hunter3#hunter4"
    recorded = validate_settings(source=url, epochs=3).to_record()
    assert recorded["source"] == "https://example.org:8443/sets/own.tar.gz"
    assert recorded["epochs"] == 3
    assert recorded.keys() == Settings.model_fields.keys()
    assert "hunter" not in str(recorded)


@pytest.mark.parametrize("source", ["https://[::1]:8443/own.tar.gz", "https://example.org/own.tar.gz"])
def test_a_url_without_credentials_is_recorded_unchanged(source: str) -> None:
    assert validate_settings(source=source).to_record()["source"] == source


@pytest.mark.parametrize(
    "values",
    [
        {"source": "http://me:hunter2@example.org/a.tar.gz"},
        {"source": "http://example.org/a.tar.gz?signature=hunter2"},
        {"source": "https://me:hunter2@/a.tar.gz"},
        {"source": "https://me:hunter2@example.org/a.tar.gz", "epochs": 0},
    ],
)
def test_a_refusal_does_not_show_the_credentials_of_a_url(values: dict[str, object]) -> None:
    assert "hunter2" not in refusal(**values)


def test_the_record_keeps_a_path_unchanged(tmp_path: Path) -> None:
    (tmp_path / "own.tar.gz").touch()
    source = str(tmp_path / "own.tar.gz")
    assert validate_settings(source=source).to_record()["source"] == source


# The store's location


def folders_from(first: Path, second: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the stores of runs that start in two folders with the same settings."""
    locations = []
    for folder in (first, second):
        folder.mkdir()
        monkeypatch.chdir(folder)
        locations.append(store_location(validate_settings().store))
    return locations


def test_the_default_store_is_the_projects_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(folders_from(tmp_path / "a", tmp_path / "b", monkeypatch)) == {str(PROJECT / "artifacts")}


def test_the_setting_overrides_the_store_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STORE_VARIABLE, str(tmp_path / "by variable"))
    assert store_location(validate_settings().store) == str(tmp_path / "by variable")
    assert store_location(validate_settings(store=str(tmp_path / "by setting")).store) == str(tmp_path / "by setting")


def test_an_empty_store_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STORE_VARIABLE, "")
    assert store_location(validate_settings().store) == str(PROJECT / "artifacts")


def test_a_relative_store_variable_ignores_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STORE_VARIABLE, "my-artifacts")
    try:
        first, second = folders_from(tmp_path / "a", tmp_path / "b", monkeypatch)
    except InputError:  # a refusal is fine as well
        return
    assert first == second


def test_an_empty_store_does_not_mean_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        folder = store_location(validate_settings(store="").store)
    except InputError:  # a refusal is fine as well
        return
    assert folder == str(PROJECT / "artifacts")


def test_a_relative_store_is_resolved_when_settings_are_created(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    settings = validate_settings(store="mine")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert store_location(settings.store) == str(tmp_path / "mine")


def test_a_bucket_can_be_chosen_by_setting_or_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    assert store_location(validate_settings(store="s3://bucket/prefix/").store) == "s3://bucket/prefix"
    assert validate_settings(store="s3://bucket//a//b").store == "s3://bucket/a/b"
    monkeypatch.setenv(STORE_VARIABLE, "s3://bucket")
    assert store_location(None) == "s3://bucket"


@pytest.mark.parametrize(
    "store", ["gs://bucket/prefix", "s3://", "s3:///prefix", "s3://id:secret@bucket", "s3://bucket/a?key=secret", ""]
)
def test_other_urls_and_credentials_are_refused_as_a_store(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    message = refusal(store=store)
    assert "expected a folder or s3://bucket/prefix without credentials" in message
    assert "secret" not in message
    monkeypatch.setenv(STORE_VARIABLE, store)
    if store:
        with pytest.raises(InputError, match=f"{STORE_VARIABLE}: expected"):
            store_location(None)
