"""Getting the archive: copied, fetched, found in the store, not needed, or generated in its place."""

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
from loopback import Mirror, closed_url, serving
from places import BucketPlace, FolderPlace, flip_a_bit, truncate
from tiny import official_archive, tiny_archive, tiny_batch

from tasks.core import acquisition
from tasks.core.acquisition import acquire_archive
from tasks.core.config import Normalization, StageName
from tasks.core.data import sources
from tasks.core.data.dataset import load_dataset
from tasks.core.data.downloader import SourceUnavailable, TransferBroken
from tasks.core.data.identity import OFFICIAL_SHA256
from tasks.core.data.sources import ARCHIVE, raw_stage
from tasks.core.data.synthetic import write_archive
from tasks.core.errors import EnvironmentFailure, InputError
from tasks.core.pipeline import dataset_stage
from tasks.core.runtime.files import sha256_of
from tasks.core.store import Store
from tasks.core.store.artifact import ArtifactRef, Outcome

Serve = Callable[..., Mirror]
WRONG = "ab" * 32


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(autouse=True)
def few_generated_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their key is of the code that makes as many as usual."""
    monkeypatch.setattr(sources, "write_archive", functools.wraps(write_archive)(lambda path: tiny_archive(path)))


@pytest.fixture
def store(folder: FolderPlace) -> Store:
    return folder.open()


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return official_archive(tmp_path / "own.tar.gz")


@pytest.fixture
def serve(own: Path) -> Iterator[Serve]:
    """Starts a server for a mirror, by default of one's own archive; all of them end with the test."""
    with ExitStack() as stack:

        def start(payload: bytes = own.read_bytes(), **ways: object) -> Mirror:
            return stack.enter_context(serving(Mirror(payload, **ways)))  # type: ignore[arg-type]

        yield start


def acquire(
    store: Store,
    wanted: str | Path,
    log: list[str],
    sha256: str | None = None,
    fallback: str | None = None,
    *,
    refresh: StageName | None = None,
    last_try: bool = True,
) -> Outcome:
    return acquire_archive(store, str(wanted), sha256, fallback, log.append, refresh=refresh, last_try=last_try)


def payload(store: Store, ref: ArtifactRef) -> bytes:
    return (store.open(ref) / ARCHIVE).read_bytes()


def normalized(store: Store, raw: ArtifactRef, log: list[str]) -> Outcome:
    return store.get_or_create(dataset_stage(store, raw, Normalization()), log.append)


def raw_versions(store: Store) -> list[str]:
    return [manifest.version for manifest in store.manifests("raw")]


def format_validation_error(error: pytest.ExceptionInfo[Exception]) -> str:
    assert str(error.value).isprintable()
    return str(error.value)


# A file of one's own


def test_a_file_is_copied_into_the_store_once(store: Store, own: Path, log: list[str]) -> None:
    first, second = acquire(store, own, log), acquire(store, own, log)
    assert payload(store, first.ref) == own.read_bytes()
    assert (first.reused, second.reused) == (False, True)
    assert first.ref == second.ref
    assert log.count("copying own.tar.gz into the store") == 1


def test_the_stores_copy_lives_on_when_the_file_changes(store: Store, own: Path, log: list[str]) -> None:
    before = own.read_bytes()
    first = acquire(store, own, log)
    own.write_bytes(official_archive(own.with_name("other"), train=[tiny_batch(9)]).read_bytes())
    second = acquire(store, own, log)
    assert first.ref.version != second.ref.version
    assert payload(store, first.ref) == before
    assert payload(store, second.ref) == own.read_bytes()
    assert any(line.startswith("download runs again: sha256 ") for line in log)  # why it was copied anew


def test_the_same_bytes_under_another_name_are_the_same_version(store: Store, own: Path, log: list[str]) -> None:
    first = acquire(store, own, log)
    second = acquire(store, own.rename(own.with_name("renamed.tar.gz")), log)
    assert (second.ref, second.reused) == (first.ref, True)


def test_a_file_with_other_bytes_than_its_pin_is_refused_with_both_digests(
    store: Store, own: Path, log: list[str]
) -> None:
    with pytest.raises(InputError) as caught:
        acquire(store, own, log, sha256=WRONG, fallback="synthetic")
    assert WRONG in format_validation_error(caught)
    assert sha256_of(own) in str(caught.value)
    assert raw_versions(store) == []


def test_with_a_pin_the_stores_copy_suffices_when_the_file_is_gone_or_changed(
    store: Store, own: Path, log: list[str]
) -> None:
    digest = sha256_of(own)
    first = acquire(store, own, log, sha256=digest)
    own.write_bytes(b"changed")
    assert acquire(store, own, log, sha256=digest) == Outcome(first.ref, True, f"reused {first.ref}")
    own.unlink()
    assert acquire(store, own, log, sha256=digest).reused


def test_a_pinned_file_that_is_nowhere_is_refused_by_its_path(store: Store, own: Path, log: list[str]) -> None:
    own.unlink()
    with pytest.raises(InputError) as caught:
        acquire(store, own, log, sha256=WRONG)
    assert str(own) in format_validation_error(caught)


def test_a_file_that_went_away_after_the_settings_were_checked_is_refused_by_its_path(
    store: Store, own: Path, log: list[str]
) -> None:
    own.unlink()
    with pytest.raises(InputError) as caught:
        acquire(store, own, log)
    assert str(own) in format_validation_error(caught)


def test_a_damaged_copy_is_said_and_copied_again(folder: FolderPlace, store: Store, own: Path, log: list[str]) -> None:
    ref = acquire(store, own, log).ref
    flip_a_bit(folder, f"{ref}/{ARCHIVE}")
    again = acquire(store, own, log)
    assert (again.ref, again.reused) == (ref, False)
    assert payload(store, ref) == own.read_bytes()
    assert any(ARCHIVE in line and "damaged" in line for line in log)


# A URL


def test_an_archive_comes_from_its_url_once(store: Store, own: Path, log: list[str], serve: Serve) -> None:
    mirror = serve()
    first, second = acquire(store, mirror.url, log), acquire(store, mirror.url, log)
    assert payload(store, first.ref) == own.read_bytes()
    assert (first.reused, second.reused, len(mirror.gets())) == (False, True, 1)
    assert not [path for path in store.downloads.rglob("*") if path.is_file()]


def test_with_a_pin_the_same_bytes_by_url_or_file_are_one_version(
    store: Store, own: Path, log: list[str], serve: Serve
) -> None:
    mirror, digest = serve(), sha256_of(own)
    fetched = acquire(store, mirror.url, log, sha256=digest)
    assert acquire(store, own, log) == Outcome(fetched.ref, True, f"reused {fetched.ref}")
    assert acquire(store, closed_url(), log, sha256=digest).ref == fetched.ref
    assert len(mirror.gets()) == 1


def test_without_a_pin_each_url_is_a_version_of_its_own(store: Store, log: list[str], serve: Serve) -> None:
    url = serve().url
    versions = {acquire(store, f"{url}{query}", log).ref.version for query in ("", "?set=1", "?set=2")}
    assert len(versions) == 3


def test_wrong_bytes_from_a_pinned_url_are_refused_and_nothing_takes_their_place(
    store: Store, own: Path, log: list[str], serve: Serve
) -> None:
    with pytest.raises(InputError) as caught:
        acquire(store, serve().url, log, sha256=WRONG, fallback="synthetic")
    assert WRONG in format_validation_error(caught)
    assert sha256_of(own) in str(caught.value)
    assert raw_versions(store) == []


def test_credentials_reach_the_server_but_nothing_on_disk_and_no_log(
    folder: FolderPlace, store: Store, log: list[str], serve: Serve
) -> None:
    mirror = serve()
    url = mirror.url.replace("//", "//me:hunter2@") + "?signature=hunter3"
    ref = acquire(store, url, log).ref
    assert mirror.gets()[0].headers["Authorization"].startswith("Basic ")
    assert mirror.gets()[0].path.endswith("?signature=hunter3")
    manifest = store.manifest("raw", ref.version)
    assert manifest is not None
    assert manifest.key.settings["url"] == mirror.url
    texts = [path.read_bytes() for path in folder.root.rglob("*") if path.is_file()] + [" ".join(log).encode()]
    assert not any(b"hunter" in text for text in texts)


def test_an_interrupted_download_goes_on_where_it_broke(store: Store, own: Path, log: list[str], serve: Serve) -> None:
    mirror = serve(breaks_after=10_000)
    with pytest.raises(TransferBroken):
        acquire(store, mirror.url, log, sha256=sha256_of(own))
    assert raw_versions(store) == []
    mirror.breaks_after = None
    assert payload(store, acquire(store, mirror.url, log, sha256=sha256_of(own)).ref) == own.read_bytes()
    assert mirror.ranges() == [None, "bytes=10000-"]


def test_to_refresh_fetches_anew_and_keeps_the_version_before(
    store: Store, log: list[str], serve: Serve, tmp_path: Path
) -> None:
    mirror = serve()
    first = acquire(store, mirror.url, log)
    mirror.payload = official_archive(tmp_path / "newer", train=[tiny_batch(9)]).read_bytes()
    second = acquire(store, mirror.url, log, refresh="download")
    assert (second.reused, len(mirror.gets())) == (False, 2)
    assert second.ref.version != first.ref.version
    assert payload(store, second.ref) == mirror.payload
    assert payload(store, first.ref) != mirror.payload
    assert acquire(store, mirror.url, log).ref == second.ref  # from now on, the newest


# An archive that is not needed


def test_a_lost_archive_is_not_fetched_again_while_its_dataset_is_intact(
    folder: FolderPlace, store: Store, log: list[str], serve: Serve
) -> None:
    mirror = serve()
    raw = acquire(store, mirror.url, log).ref
    dataset = normalized(store, raw, log).ref
    folder.delete(f"{raw}/{ARCHIVE}")

    spared = acquire(store, mirror.url, log)

    assert (spared.ref, spared.reused, len(mirror.gets())) == (raw, True, 1)
    assert str(dataset) in spared.message
    assert normalized(store, spared.ref, log) == Outcome(dataset, True, f"reused {dataset}")


def test_a_pinned_archive_of_which_nothing_is_left_is_not_needed_either(
    folder: FolderPlace, store: Store, own: Path, log: list[str]
) -> None:
    digest = sha256_of(own)
    raw = acquire(store, own, log, sha256=digest).ref
    dataset = normalized(store, raw, log).ref
    folder.lose(raw)
    own.unlink()
    spared = acquire(store, own, log, sha256=digest)
    assert (spared.ref, spared.reused) == (raw, True)
    assert normalized(store, spared.ref, log).ref == dataset


@pytest.mark.parametrize("loss", ["dataset damaged", "dataset gone", "download", "normalize"])
def test_a_lost_archive_is_fetched_again_when_something_needs_it(
    folder: FolderPlace, store: Store, own: Path, log: list[str], serve: Serve, loss: str
) -> None:
    mirror = serve()
    raw = acquire(store, mirror.url, log).ref
    dataset = normalized(store, raw, log).ref
    folder.delete(f"{raw}/{ARCHIVE}")
    if loss == "dataset damaged":
        truncate(folder, f"{dataset}/test_labels.npy")
    elif loss == "dataset gone":
        folder.lose(dataset)
    again = acquire(store, mirror.url, log, refresh=loss if loss in ("download", "normalize") else None)
    assert (again.reused, len(mirror.gets())) == (False, 2)
    assert payload(store, again.ref) == own.read_bytes()
    assert again.ref.sha256 == raw.sha256


def test_an_archive_is_read_again_only_for_a_dataset(store: Store, own: Path, log: list[str]) -> None:
    raw = acquire(store, own, log).ref
    assert acquire(store, own, log).message == f"reused {raw}"
    dataset = normalized(store, raw, log).ref
    unread = f"{raw} is not needed: {dataset}, made from it, is intact"
    assert acquire(store, own, log) == Outcome(raw, True, unread)
    assert acquire(store, own, log, refresh="normalize").message == f"reused {raw}"


def test_a_bucket_does_not_send_the_archive_to_a_machine_that_only_needs_the_dataset(
    bucket: BucketPlace, own: Path, log: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    raw = acquire(bucket.open(), own, log).ref
    normalized(bucket.open(), raw, log)

    monkeypatch.setenv("CIFAR_FLOW_CACHE", str(tmp_path / "another machine"))
    normalized(bucket.open(), acquire(bucket.open(), own, log).ref, log)

    copies = {path.name for path in (tmp_path / "another machine").rglob("copies/**/*") if path.is_file()}
    assert "train_images.npy" in copies
    assert ARCHIVE not in copies


# CIFAR-10 and generated images


@pytest.fixture
def unreachable_cifar10(monkeypatch: pytest.MonkeyPatch) -> None:
    mirrors = [closed_url(), closed_url()]
    monkeypatch.setattr(acquisition, "raw_stage", partial(raw_stage, mirrors=mirrors))


def test_cifar10_is_the_official_archive_over_https_only() -> None:
    assert raw_stage("cifar10", None, Path()).key.settings == {"sha256": OFFICIAL_SHA256}
    assert all(url.startswith("https://") for url in sources.MIRRORS)
    assert sources.MIRRORS[-1].startswith("https://www.cs.toronto.edu/~kriz/")


def test_other_bytes_than_the_official_ones_are_never_taken_for_cifar10(
    store: Store, log: list[str], serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirrors = [serve().url, serve().url]
    monkeypatch.setattr(acquisition, "raw_stage", partial(raw_stage, mirrors=mirrors))
    with pytest.raises(EnvironmentFailure, match=OFFICIAL_SHA256):
        acquire(store, "cifar10", log)
    assert raw_versions(store) == []


@pytest.mark.usefixtures("unreachable_cifar10")
def test_without_a_network_the_run_ends_with_ways_to_go_on(store: Store, log: list[str]) -> None:
    with pytest.raises(SourceUnavailable) as caught:
        acquire(store, "cifar10", log)
    assert "--source" in format_validation_error(caught)
    assert raw_versions(store) == []


@pytest.mark.usefixtures("unreachable_cifar10")
@pytest.mark.parametrize("last_try", [True, False])
def test_with_a_fallback_generated_images_come_at_once_and_it_is_said(
    store: Store, log: list[str], last_try: bool
) -> None:
    raw = acquire(store, "cifar10", log, fallback="synthetic", last_try=last_try).ref
    assert any("going on with --offline-fallback synthetic" in line for line in log)
    assert any("these are not CIFAR-10" in line for line in log)
    dataset = load_dataset(store.open(normalized(store, raw, log).ref))
    assert dataset.identity.generated


@pytest.mark.usefixtures("unreachable_cifar10")
def test_the_fallback_is_the_synthetic_source_itself(store: Store, log: list[str]) -> None:
    raw = acquire(store, "synthetic", log).ref
    assert acquire(store, "cifar10", log, fallback="synthetic") == Outcome(raw, True, f"reused {raw}")


def test_the_fallback_is_not_taken_while_the_store_has_the_archive(
    store: Store, own: Path, log: list[str], serve: Serve
) -> None:
    mirror = serve()
    raw = acquire(store, mirror.url, log).ref
    mirror.status = 503
    assert acquire(store, mirror.url, log, fallback="synthetic").ref == raw
    assert payload(store, raw) == own.read_bytes()


def test_a_refresh_that_finds_no_server_does_not_put_generated_images_in_the_place_of_the_stored_archive(
    store: Store, log: list[str], serve: Serve
) -> None:
    mirror = serve()
    raw = acquire(store, mirror.url, log).ref
    mirror.status = 503
    try:
        outcome = acquire(store, mirror.url, log, fallback="synthetic", refresh="download")
    except SourceUnavailable:  # to end the run is fine, too
        return
    assert outcome.ref == raw


def test_the_fallback_is_not_taken_while_the_dataset_makes_the_archive_needless(
    folder: FolderPlace, store: Store, log: list[str], serve: Serve
) -> None:
    mirror = serve()
    raw = acquire(store, mirror.url, log).ref
    normalized(store, raw, log)
    folder.delete(f"{raw}/{ARCHIVE}")
    mirror.status = 503
    assert acquire(store, mirror.url, log, fallback="synthetic").ref == raw


def test_a_transfer_that_broke_is_tried_again_before_the_fallback_is_taken(
    store: Store, log: list[str], serve: Serve
) -> None:
    mirror = serve(breaks_after=10_000)
    with pytest.raises(TransferBroken):
        acquire(store, mirror.url, log, fallback="synthetic", last_try=False)
    assert raw_versions(store) == []
    raw = acquire(store, mirror.url, log, fallback="synthetic", last_try=True).ref
    assert load_dataset(store.open(normalized(store, raw, log).ref)).identity.generated


def test_the_archive_that_was_asked_for_is_tried_again_after_a_fallback(
    store: Store, own: Path, log: list[str], serve: Serve
) -> None:
    mirror = serve(status=503)
    generated = acquire(store, mirror.url, log, fallback="synthetic").ref
    mirror.status = None
    raw = acquire(store, mirror.url, log, fallback="synthetic").ref
    assert raw.version != generated.version
    assert payload(store, raw) == own.read_bytes()


def test_without_a_fallback_a_server_that_refuses_is_named(store: Store, log: list[str], serve: Serve) -> None:
    mirror = serve(status=404)
    with pytest.raises(SourceUnavailable) as caught:
        acquire(store, mirror.url, log)
    assert f"{mirror.host}: answered 404" in format_validation_error(caught)


def test_generated_images_are_made_once(store: Store, log: list[str]) -> None:
    first, second = acquire(store, "synthetic", log), acquire(store, "synthetic", log)
    assert (first.ref, first.reused, second.reused) == (second.ref, False, True)


def test_generated_images_follow_the_code_that_draws_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "write_archive", write_archive)
    key = raw_stage("synthetic", None, Path()).key
    assert {"tasks/core/data/synthetic.py: write_archive", "tasks/core/data/synthetic.py: _draw"} <= key.code.keys()
    assert "numpy" in key.environment


def test_what_a_url_gives_that_is_no_archive_is_not_kept(store: Store, own: Path, serve: Serve, log: list[str]) -> None:
    page, good = serve(b"<html>please log in</html>"), serve()
    for _ in range(2):
        with pytest.raises(EnvironmentFailure, match="expected a tar archive from http://127"):
            acquire(store, page.url, log)
    assert len(page.ranges()) == 2
    assert not store.versions("raw")

    assert payload(store, acquire(store, good.url, log).ref) == own.read_bytes()
