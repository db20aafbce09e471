"""Which files the names of files, folders and globs mean."""

import os
from pathlib import Path

import pytest
from tiny_artifacts import quiet

from tasks.core.errors import InputError
from tasks.core.inference.image_files import absolute_name, as_text, find_images, printable


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of empty files: only their names count here."""
    folder = tmp_path / "photos"
    for name in ("b.png", "a.JPG", "c.webp", "notes.txt", ".hidden.png", "sub/d.jpeg", ".thumbs/e.png", "sub/x[1].png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def found(*names: Path | str) -> list[str]:
    return find_images([str(name) for name in names], quiet)


def names_of(paths: list[str], folder: Path) -> list[str]:
    return [str(Path(path).relative_to(folder)) for path in paths]


def test_a_folder_stands_for_the_images_in_it_and_below_sorted_without_hidden_ones(photos: Path) -> None:
    assert names_of(found(photos), photos) == ["a.JPG", "b.png", "c.webp", "sub/d.jpeg", "sub/x[1].png"]


def test_a_file_that_is_named_is_taken_whatever_its_suffix(photos: Path) -> None:
    named = [str(photos / "notes.txt"), str(photos / ".hidden.png")]
    assert found(*named) == named


def test_a_glob_finds_what_a_shell_would_and_folders_in_it_stand_for_their_images(photos: Path) -> None:
    assert names_of(found(photos / "*.[pJ]*"), photos) == ["a.JPG", "b.png"]
    assert names_of(found(photos / "s*"), photos) == ["sub/d.jpeg", "sub/x[1].png"]
    assert names_of(found(photos / "**/*.jpeg"), photos) == ["sub/d.jpeg"]


def test_a_name_with_brackets_means_the_file_that_is_called_so(photos: Path) -> None:
    assert names_of(found(photos / "sub/x[1].png"), photos) == ["sub/x[1].png"]


def test_names_are_made_absolute_also_in_a_folder_whose_own_name_looks_like_a_glob(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = photos.rename(photos.with_name("photos [2024]"))
    monkeypatch.chdir(odd)
    for name, expected in (("*.png", ["b.png"]), ("b.png", ["b.png"]), ("sub/x[1].png", ["sub/x[1].png"])):
        assert names_of(found(absolute_name(name)), odd) == expected
    assert absolute_name("/photos/*") == "/photos/*"


def test_each_file_is_taken_once_however_often_it_is_named(photos: Path) -> None:
    (photos / "loop").symlink_to(photos)
    assert names_of(found(photos / "c.webp", photos, photos / "**/*.webp"), photos) == [
        "c.webp",
        "a.JPG",
        "b.png",
        "sub/d.jpeg",
        "sub/x[1].png",
    ]


def test_links_to_files_are_files_of_their_own_and_links_to_folders_are_not_entered(photos: Path) -> None:
    (photos / "linked.png").symlink_to(photos / "b.png")
    (photos / "folder.png").symlink_to(photos / "sub")
    assert "linked.png" in names_of(found(photos), photos)
    assert len(found(photos)) == 6
    assert len(found(photos / "folder.png")) == 2


@pytest.mark.parametrize("name", ["no.png", "no/such/folder", "", "https://example.org/cat.jpg", "a\0b"])
def test_a_name_of_nothing_is_refused(photos: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"images: expected a file, folder or glob, got .*, which is not there"):
        found(photos, f"{photos}/{name}" if name else "")


def test_without_any_image_it_is_said_where_none_was_found(tmp_path: Path) -> None:
    with pytest.raises(InputError) as raised:
        found(tmp_path, tmp_path / "*.png")
    assert str(raised.value) == (
        f"images: expected PNG, JPEG or WebP files in {tmp_path}, got none; "
        f"images: expected PNG, JPEG or WebP files in {tmp_path}/*.png, got none; give other files, folders or globs"
    )


def test_an_empty_folder_among_others_is_told_and_does_not_stop_the_rest(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    lines: list[str] = []
    assert len(find_images([str(tmp_path / "empty"), str(photos)], lines.append)) == 5
    assert lines == [f"images: expected PNG, JPEG or WebP files in {tmp_path / 'empty'}, got none"]


def test_a_current_folder_that_is_gone_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(InputError, match="the current folder is not there any more"):
        absolute_name("photos")


def test_odd_names_are_found_and_shown_on_one_line(tmp_path: Path) -> None:
    odd = ["-n.png", "<b>.png", "two\nlines.png", "bell\a.png", "katze 猫.png", os.fsdecode(b"latin-\xe9.png")]
    for name in odd:
        (tmp_path / name).touch()
    paths = found(tmp_path)
    assert sorted(names_of(paths, tmp_path)) == sorted(odd)
    shown = {printable(Path(path).name) for path in paths}
    assert shown == {"-n.png", "<b>.png", r"two\nlines.png", r"bell\x07.png", "katze 猫.png", r"latin-\xe9.png"}
    assert all(as_text(path).encode() for path in paths)
