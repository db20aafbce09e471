"""The image files that the names of files, folders and globs stand for."""

import os
from pathlib import Path

import pytest

from tasks.core.errors import InputError
from tasks.core.inference.image_files import absolute_name, as_text, find_images, printable


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of empty files: only their names matter here."""
    folder = tmp_path / "photos"
    for name in ("b.png", "a.JPG", "c.webp", "notes.txt", ".hidden.png", "sub/d.jpeg", ".thumbs/e.png", "sub/x[1].png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def find(*names: Path | str) -> list[str]:
    return find_images([str(name) for name in names])


def names_of(paths: list[str], folder: Path) -> list[str]:
    return [str(Path(path).relative_to(folder)) for path in paths]


def test_a_folder_stands_for_its_images_without_hidden_files(photos: Path) -> None:
    assert names_of(find(photos), photos) == ["a.JPG", "b.png", "c.webp", "sub/d.jpeg", "sub/x[1].png"]


def test_a_named_file_may_have_any_suffix(photos: Path) -> None:
    named = [str(photos / "notes.txt"), str(photos / ".hidden.png")]
    assert find(*named) == named


def test_a_glob_matches_files_and_folders(photos: Path) -> None:
    assert names_of(find(photos / "*.[pJ]*"), photos) == ["a.JPG", "b.png"]
    assert names_of(find(photos / "s*"), photos) == ["sub/d.jpeg", "sub/x[1].png"]
    assert names_of(find(photos / "**/*.jpeg"), photos) == ["sub/d.jpeg"]


def test_a_file_name_with_brackets_is_no_glob(photos: Path) -> None:
    assert names_of(find(photos / "sub/x[1].png"), photos) == ["sub/x[1].png"]


def test_names_are_absolute_also_in_a_folder_named_like_a_glob(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = photos.rename(photos.with_name("photos [2024]"))
    monkeypatch.chdir(odd)
    for name, expected in (("*.png", ["b.png"]), ("b.png", ["b.png"]), ("sub/x[1].png", ["sub/x[1].png"])):
        assert names_of(find(absolute_name(name)), odd) == expected
    assert absolute_name("/photos/*") == "/photos/*"


def test_each_file_is_found_once(photos: Path) -> None:
    (photos / "loop").symlink_to(photos)
    assert names_of(find(photos / "c.webp", photos, photos / "**/*.webp"), photos) == [
        "c.webp",
        "a.JPG",
        "b.png",
        "sub/d.jpeg",
        "sub/x[1].png",
    ]


def test_linked_files_are_found_and_linked_folders_skipped(photos: Path) -> None:
    (photos / "linked.png").symlink_to(photos / "b.png")
    (photos / "folder.png").symlink_to(photos / "sub")
    assert "linked.png" in names_of(find(photos), photos)
    assert len(find(photos)) == 6
    assert len(find(photos / "folder.png")) == 2


@pytest.mark.parametrize("name", ["no.png", "no/such/folder", "", "https://example.org/cat.jpg", "a\0b"])
def test_a_missing_name_is_refused(photos: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"images: expected a file, folder or glob, got .*, which does not exist"):
        find(photos, f"{photos}/{name}" if name else "")


def test_no_images_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError) as raised:
        find(tmp_path, tmp_path / "*.png")
    assert str(raised.value) == (
        f"images: expected PNG, JPEG or WebP files, got none in {tmp_path}, {tmp_path}/*.png; "
        "give other files, folders or globs"
    )


def test_a_name_without_images_is_logged_once(photos: Path, tmp_path: Path, log: list[str]) -> None:
    (tmp_path / "empty").mkdir()
    names = [str(tmp_path / "empty"), str(photos)]
    find_images(names, log_empty=False)  # as the command line does before the flow
    assert len(find_images(names)) == 5
    assert log == [f"predict: no PNG, JPEG or WebP files in {tmp_path / 'empty'}"]


def test_a_missing_current_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(InputError, match="the current folder no longer exists"):
        absolute_name("photos")


def test_unusual_names_are_found_and_printable(tmp_path: Path) -> None:
    odd = ["-n.png", "<b>.png", "two\nlines.png", "bell\a.png", "katze 猫.png", os.fsdecode(b"latin-\xe9.png")]
    for name in odd:
        (tmp_path / name).touch()
    paths = find(tmp_path)
    assert sorted(names_of(paths, tmp_path)) == sorted(odd)
    shown = {printable(Path(path).name) for path in paths}
    assert shown == {"-n.png", "<b>.png", r"two\nlines.png", r"bell\x07.png", "katze 猫.png", r"latin-\xe9.png"}
    assert all(as_text(path).encode() for path in paths)
