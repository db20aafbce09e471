"""The archive: copied, downloaded, a cache hit, not needed, or generated as fallback."""

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from loopback import Mirror, closed_url, serving
from places import BucketPlace, FolderPlace, flip_a_bit, truncate
from tiny import official_archive, tiny_archive, tiny_batch
from tiny_trainings import training

from tasks.core.config import StageName
from tasks.core.data import sources
from tasks.core.data.dataset import load_dataset
from tasks.core.data.downloader import SourceUnavailable, TransferBroken
from tasks.core.data.identity import OFFICIAL_SHA256
from tasks.core.data.sources import ARCHIVE
from tasks.core.data.synthetic import write_archive
from tasks.core.errors import EnvironmentFailure, InputError
from tasks.core.pipeline import STAGES, Plan, Step
from tasks.core.pipeline_run import Pipeline
from tasks.core.runtime.files import sha256_of
from tasks.core.store import Store
from tasks.core.store.artifact import ArtifactRef, Outcome
from tasks.core.store.runs import recording_run

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
    sha256: str | None = None,
    fallback: str | None = None,
    *,
    refresh: StageName | None = None,
    is_last_attempt: bool = True,
) -> Outcome:
    source = sources.find_source(str(wanted), sha256)
    plan = Plan(source, training(), fallback=sources.find_source(fallback, None) if fallback else None)
    with recording_run(replace(store, refresh=refresh), {}, {}) as run:
        return Pipeline(plan, run).download(is_last_attempt=is_last_attempt)


def payload(store: Store, ref: ArtifactRef) -> bytes:
    return (store.open(ref) / ARCHIVE).read_bytes()


def normalized(store: Store, raw: ArtifactRef) -> Outcome:
    plan = Plan(sources.find_source("synthetic", None), training())
    return store.get_or_create(STAGES["dataset"].build(Step(plan, store, {"raw": raw})))


def raw_versions(store: Store) -> list[str]:
    return [manifest.version for manifest in store.manifests("raw")]


def one_line(error: pytest.ExceptionInfo[Exception]) -> str:
    assert str(error.value).isprintable()
    return str(error.value)


# A local file


def test_a_file_is_copied_into_the_store_once(store: Store, own: Path, log: list[str]) -> None:
    first, second = acquire(store, own), acquire(store, own)
    assert payload(store, first.ref) == own.read_bytes()
    assert (first.is_cache_hit, second.is_cache_hit) == (False, True)
    assert first.ref == second.ref
    assert log.count("download: copying own.tar.gz into the store") == 1


def test_the_stores_copy_lives_on_when_the_file_changes(store: Store, own: Path, log: list[str]) -> None:
    before = own.read_bytes()
    first = acquire(store, own)
    own.write_bytes(official_archive(own.with_name("other"), train=[tiny_batch(9)]).read_bytes())
    second = acquire(store, own)
    assert first.ref.version != second.ref.version
    assert payload(store, first.ref) == before
    assert payload(store, second.ref) == own.read_bytes()
    assert any(line.startswith("download: rebuilding, sha256 ") for line in log)  # why it was copied anew


def test_the_same_bytes_under_another_name_are_the_same_version(store: Store, own: Path) -> None:
    first = acquire(store, own)
    second = acquire(store, own.rename(own.with_name("renamed.tar.gz")))
    assert (second.ref, second.is_cache_hit) == (first.ref, True)


def test_a_file_that_does_not_match_its_pin_is_refused(store: Store, own: Path) -> None:
    with pytest.raises(InputError) as caught:
        acquire(store, own, sha256=WRONG, fallback="synthetic")
    assert WRONG in one_line(caught)
    assert sha256_of(own) in str(caught.value)
    assert raw_versions(store) == []


def test_with_a_pin_the_stores_copy_is_enough(store: Store, own: Path) -> None:
    digest = sha256_of(own)
    first = acquire(store, own, sha256=digest)
    own.write_bytes(b"changed")
    assert acquire(store, own, sha256=digest) == Outcome(first.ref, True, f"cache hit {first.ref}")
    own.unlink()
    assert acquire(store, own, sha256=digest).is_cache_hit


def test_a_pinned_file_that_does_not_exist_is_refused_by_its_path(store: Store, own: Path) -> None:
    own.unlink()
    with pytest.raises(InputError) as caught:
        acquire(store, own, sha256=WRONG)
    assert str(own) in one_line(caught)


def test_a_file_that_has_disappeared_is_refused_by_its_path(store: Store, own: Path) -> None:
    own.unlink()
    with pytest.raises(InputError) as caught:
        acquire(store, own)
    assert str(own) in one_line(caught)


def test_a_damaged_copy_is_logged_and_copied_again(
    folder: FolderPlace, store: Store, own: Path, log: list[str]
) -> None:
    ref = acquire(store, own).ref
    flip_a_bit(folder, f"{ref}/{ARCHIVE}")
    again = acquire(store, own)
    assert (again.ref, again.is_cache_hit) == (ref, False)
    assert payload(store, ref) == own.read_bytes()
    assert any(ARCHIVE in line and "damaged" in line for line in log)


# A URL


def test_an_archive_comes_from_its_url_once(store: Store, own: Path, serve: Serve) -> None:
    mirror = serve()
    first, second = acquire(store, mirror.url), acquire(store, mirror.url)
    assert payload(store, first.ref) == own.read_bytes()
    assert (first.is_cache_hit, second.is_cache_hit, len(mirror.gets())) == (False, True, 1)
    assert not [path for path in store.downloads.rglob("*") if path.is_file()]


def test_with_a_pin_the_same_bytes_by_url_or_file_are_one_version(store: Store, own: Path, serve: Serve) -> None:
    mirror, digest = serve(), sha256_of(own)
    fetched = acquire(store, mirror.url, sha256=digest)
    assert acquire(store, own) == Outcome(fetched.ref, True, f"cache hit {fetched.ref}")
    assert acquire(store, closed_url(), sha256=digest).ref == fetched.ref
    assert len(mirror.gets()) == 1


def test_without_a_pin_each_url_is_a_version_of_its_own(store: Store, serve: Serve) -> None:
    url = serve().url
    versions = {acquire(store, f"{url}{query}").ref.version for query in ("", "?set=1", "?set=2")}
    assert len(versions) == 3


def test_wrong_bytes_from_a_pinned_url_are_refused(store: Store, own: Path, serve: Serve) -> None:
    with pytest.raises(InputError) as caught:
        acquire(store, serve().url, sha256=WRONG, fallback="synthetic")
    assert WRONG in one_line(caught)
    assert sha256_of(own) in str(caught.value)
    assert raw_versions(store) == []


def test_credentials_reach_the_server_but_no_file_and_no_log(
    folder: FolderPlace, store: Store, log: list[str], serve: Serve
) -> None:
    mirror = serve()
    url = mirror.url.replace("//", "//me:hunter2@") + "?signature=hunter3"
    ref = acquire(store, url).ref
    assert mirror.gets()[0].headers["Authorization"].startswith("Basic ")
    assert mirror.gets()[0].path.endswith("?signature=hunter3")
    manifest = store.manifest("raw", ref.version)
    assert manifest is not None
    assert manifest.key.settings["url"] == mirror.url
    texts = [path.read_bytes() for path in folder.root.rglob("*") if path.is_file()] + [" ".join(log).encode()]
    assert not any(b"hunter" in text for text in texts)


def test_an_interrupted_download_resumes(store: Store, own: Path, serve: Serve) -> None:
    mirror = serve(breaks_after=10_000)
    with pytest.raises(TransferBroken):
        acquire(store, mirror.url, sha256=sha256_of(own))
    assert raw_versions(store) == []
    mirror.breaks_after = None
    assert payload(store, acquire(store, mirror.url, sha256=sha256_of(own)).ref) == own.read_bytes()
    assert mirror.ranges() == [None, "bytes=10000-"]


def test_refresh_downloads_again_and_keeps_the_earlier_version(store: Store, serve: Serve, tmp_path: Path) -> None:
    mirror = serve()
    first = acquire(store, mirror.url)
    mirror.payload = official_archive(tmp_path / "newer", train=[tiny_batch(9)]).read_bytes()
    second = acquire(store, mirror.url, refresh="download")
    assert (second.is_cache_hit, len(mirror.gets())) == (False, 2)
    assert second.ref.version != first.ref.version
    assert payload(store, second.ref) == mirror.payload
    assert payload(store, first.ref) != mirror.payload
    assert acquire(store, mirror.url).ref == second.ref  # from now on, the newest


# An archive that is not needed


def test_a_lost_archive_is_not_downloaded_while_its_dataset_is_intact(
    folder: FolderPlace, store: Store, serve: Serve
) -> None:
    mirror = serve()
    raw = acquire(store, mirror.url).ref
    dataset = normalized(store, raw).ref
    folder.delete(f"{raw}/{ARCHIVE}")

    spared = acquire(store, mirror.url)

    assert (spared.ref, spared.is_cache_hit, len(mirror.gets())) == (raw, True, 1)
    assert str(dataset) in spared.message
    assert normalized(store, spared.ref) == Outcome(dataset, True, f"cache hit {dataset}")


def test_a_lost_pinned_archive_is_not_needed_either(folder: FolderPlace, store: Store, own: Path) -> None:
    digest = sha256_of(own)
    raw = acquire(store, own, sha256=digest).ref
    dataset = normalized(store, raw).ref
    folder.lose(raw)
    own.unlink()
    spared = acquire(store, own, sha256=digest)
    assert (spared.ref, spared.is_cache_hit) == (raw, True)
    assert normalized(store, spared.ref).ref == dataset


@pytest.mark.parametrize("loss", ["dataset damaged", "dataset gone", "download", "normalize"])
def test_a_lost_archive_is_fetched_when_a_stage_needs_it(
    folder: FolderPlace, store: Store, own: Path, serve: Serve, loss: str
) -> None:
    mirror = serve()
    raw = acquire(store, mirror.url).ref
    dataset = normalized(store, raw).ref
    folder.delete(f"{raw}/{ARCHIVE}")
    if loss == "dataset damaged":
        truncate(folder, f"{dataset}/test_labels.npy")
    elif loss == "dataset gone":
        folder.lose(dataset)
    again = acquire(store, mirror.url, refresh=loss if loss in ("download", "normalize") else None)
    assert (again.is_cache_hit, len(mirror.gets())) == (False, 2)
    assert payload(store, again.ref) == own.read_bytes()
    assert again.ref.sha256 == raw.sha256


def test_an_archive_is_read_again_only_for_a_dataset(store: Store, own: Path) -> None:
    raw = acquire(store, own).ref
    assert acquire(store, own).message == f"cache hit {raw}"
    dataset = normalized(store, raw).ref
    unread = f"{raw} is not needed: {dataset}, built from it, is intact"
    assert acquire(store, own) == Outcome(raw, True, unread)
    assert acquire(store, own, refresh="normalize").message == f"cache hit {raw}"


def test_a_bucket_sends_only_the_dataset_to_another_machine(
    bucket: BucketPlace, own: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    raw = acquire(bucket.open(), own).ref
    normalized(bucket.open(), raw)

    monkeypatch.setenv("CIFAR_FLOW_CACHE", str(tmp_path / "another machine"))
    normalized(bucket.open(), acquire(bucket.open(), own).ref)

    copies = {path.name for path in (tmp_path / "another machine").rglob("copies/**/*") if path.is_file()}
    assert "train_images.npy" in copies
    assert ARCHIVE not in copies


# CIFAR-10 and generated images


@pytest.fixture
def unreachable_cifar10(monkeypatch: pytest.MonkeyPatch) -> None:
    mirrors = [closed_url(), closed_url()]
    monkeypatch.setattr(sources, "find_source", partial(sources.find_source, mirrors=mirrors))


def test_cifar10_is_the_official_archive_over_https_only() -> None:
    assert sources.find_source("cifar10", None).settings == {"sha256": OFFICIAL_SHA256}
    assert all(url.startswith("https://") for url in sources.MIRRORS)
    assert sources.MIRRORS[-1].startswith("https://www.cs.toronto.edu/~kriz/")


def test_only_the_official_bytes_are_taken_for_cifar10(
    store: Store, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirrors = [serve().url, serve().url]
    monkeypatch.setattr(sources, "find_source", partial(sources.find_source, mirrors=mirrors))
    with pytest.raises(EnvironmentFailure, match=OFFICIAL_SHA256):
        acquire(store, "cifar10")
    assert raw_versions(store) == []


@pytest.mark.usefixtures("unreachable_cifar10")
def test_without_a_network_the_error_names_the_alternatives(store: Store) -> None:
    with pytest.raises(SourceUnavailable) as caught:
        acquire(store, "cifar10")
    assert "--source" in one_line(caught)
    assert raw_versions(store) == []


@pytest.mark.usefixtures("unreachable_cifar10")
@pytest.mark.parametrize("is_last_attempt", [True, False])
def test_with_a_fallback_images_are_generated_at_once(store: Store, log: list[str], is_last_attempt: bool) -> None:
    raw = acquire(store, "cifar10", fallback="synthetic", is_last_attempt=is_last_attempt).ref
    assert any("continuing with --offline-fallback" in line for line in log)
    assert any("these are not CIFAR-10" in line for line in log)
    dataset = load_dataset(store.open(normalized(store, raw).ref))
    assert dataset.identity.is_generated


@pytest.mark.usefixtures("unreachable_cifar10")
def test_the_fallback_is_the_synthetic_source_itself(store: Store) -> None:
    raw = acquire(store, "synthetic").ref
    assert acquire(store, "cifar10", fallback="synthetic") == Outcome(raw, True, f"cache hit {raw}")


def test_no_fallback_while_the_store_has_the_archive(store: Store, own: Path, serve: Serve) -> None:
    mirror = serve()
    raw = acquire(store, mirror.url).ref
    mirror.status = 503
    assert acquire(store, mirror.url, fallback="synthetic").ref == raw
    assert payload(store, raw) == own.read_bytes()


def test_a_failed_refresh_does_not_replace_the_stored_archive(store: Store, serve: Serve) -> None:
    mirror = serve()
    raw = acquire(store, mirror.url).ref
    mirror.status = 503
    try:
        outcome = acquire(store, mirror.url, fallback="synthetic", refresh="download")
    except SourceUnavailable:  # to end the run is fine, too
        return
    assert outcome.ref == raw


def test_no_fallback_while_the_dataset_is_intact(folder: FolderPlace, store: Store, serve: Serve) -> None:
    mirror = serve()
    raw = acquire(store, mirror.url).ref
    normalized(store, raw)
    folder.delete(f"{raw}/{ARCHIVE}")
    mirror.status = 503
    assert acquire(store, mirror.url, fallback="synthetic").ref == raw


def test_a_broken_transfer_is_retried_before_the_fallback(store: Store, serve: Serve) -> None:
    mirror = serve(breaks_after=10_000)
    with pytest.raises(TransferBroken):
        acquire(store, mirror.url, fallback="synthetic", is_last_attempt=False)
    assert raw_versions(store) == []
    raw = acquire(store, mirror.url, fallback="synthetic", is_last_attempt=True).ref
    assert load_dataset(store.open(normalized(store, raw).ref)).identity.is_generated


def test_the_requested_archive_is_tried_again_after_a_fallback(store: Store, own: Path, serve: Serve) -> None:
    mirror = serve(status=503)
    generated = acquire(store, mirror.url, fallback="synthetic").ref
    mirror.status = None
    raw = acquire(store, mirror.url, fallback="synthetic").ref
    assert raw.version != generated.version
    assert payload(store, raw) == own.read_bytes()


def test_without_a_fallback_a_server_that_refuses_is_named(store: Store, serve: Serve) -> None:
    mirror = serve(status=404)
    with pytest.raises(SourceUnavailable) as caught:
        acquire(store, mirror.url)
    assert f"{mirror.host}: answered 404" in one_line(caught)


def test_generated_images_are_made_once(store: Store) -> None:
    first, second = acquire(store, "synthetic"), acquire(store, "synthetic")
    assert (first.ref, first.is_cache_hit, second.is_cache_hit) == (second.ref, False, True)


def test_generated_images_follow_the_code_that_draws_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "write_archive", write_archive)
    source = sources.find_source("synthetic", None)
    assert {"tasks/core/data/synthetic.py: write_archive", "tasks/core/data/synthetic.py: _draw"} <= source.code.keys()
    assert "numpy" in source.environment


def test_a_web_page_instead_of_an_archive_is_not_kept(store: Store, own: Path, serve: Serve) -> None:
    page, good = serve(b"<html>please log in</html>"), serve()
    for _ in range(2):
        with pytest.raises(EnvironmentFailure, match="expected a tar archive from http://127"):
            acquire(store, page.url)
    assert len(page.ranges()) == 2
    assert not store.versions("raw")

    assert payload(store, acquire(store, good.url).ref) == own.read_bytes()
