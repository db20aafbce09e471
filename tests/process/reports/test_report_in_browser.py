"""The report in a real browser."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page

from tasks.core.store import open_store
from tasks.core.store.history import find_run

PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1440, "height": 900}


@pytest.fixture
def report(two_runs: Path) -> Path:
    return two_runs / "report.html"


@pytest.fixture(params=["light", "dark"])
def page(request: pytest.FixtureRequest, browser: Browser) -> Iterator[Page]:
    page = browser.new_page(color_scheme=request.param)
    yield page
    page.close()


@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_page_fits_loads_nothing_and_logs_nothing(page: Page, report: Path, size: dict[str, int]) -> None:
    messages: list[str] = []
    requests: list[str] = []

    def note(message: ConsoleMessage) -> None:
        messages.append(message.text)

    page.on("console", note)
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.set_viewport_size({"width": size["width"], "height": size["height"]})
    page.goto(report.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert messages == []
    assert [url for url in requests if not url.startswith(("data:", "file:"))] == []


def test_text_has_enough_contrast_in_light_and_dark(page: Page, report: Path) -> None:
    page.goto(report.as_uri())
    ink, paper = page.evaluate(
        "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    )
    assert contrast(ink, paper) >= 7


def browsed_images(page: Page) -> list[list[str]]:
    """The truth and prediction of the images that are listed to browse."""
    cards = page.locator("#shown li").all()
    return [[card.locator("strong").inner_text(), card.locator("span").last.inner_text()] for card in cards]


def test_a_count_of_the_confusion_matrix_shows_its_images(page: Page, report: Path) -> None:
    page.goto(report.as_uri())
    rows = page.locator(".heat tbody tr").all()
    wrong = [
        (row.locator("th").inner_text(), cell)
        for truth, row in enumerate(rows)
        for predicted, cell in enumerate(row.locator("td").all())
        if truth != predicted and cell.locator("button").count()
    ]
    label, cell = wrong[0]
    count = int(cell.inner_text())
    cell.locator("button").focus()
    page.keyboard.press("Enter")

    assert page.locator("#found").inner_text() == ("1 image" if count == 1 else f"{count} images")
    assert {truth for truth, _ in browsed_images(page)} == {label}
    assert {prediction[0] for _, prediction in browsed_images(page)} == {"✗"}
    assert page.evaluate("document.activeElement.textContent") == "Browse the images"


def test_images_are_filtered_and_sorted(page: Page, report: Path) -> None:
    page.goto(report.as_uri())
    assert page.locator("#found").inner_text() == "100 images, the first 24"
    page.get_by_role("button", name="Show more").click()
    assert len(browsed_images(page)) == 48

    page.get_by_label("Answer").select_option("right")
    page.get_by_label("Order").select_option("unsure")
    confidences = [float(each.inner_text().rstrip("%")) for each in page.locator("#shown small").all()]
    assert confidences == sorted(confidences)
    assert {prediction[0] for _, prediction in browsed_images(page)} == {"✓"}

    label = browsed_images(page)[0][0]
    page.get_by_label("Ground truth").select_option(label)
    assert {truth for truth, _ in browsed_images(page)} == {label}
    page.get_by_role("button", name="All images").click()
    page.wait_for_function("document.getElementById('found').textContent.startsWith('100 ')")


def test_links_to_manifests_work_at_both_places_of_the_report(page: Page, report: Path) -> None:
    own = find_run(open_store(report.parent), "current").artifacts["report"]
    for place in (report, report.parent / str(own) / "report.html"):
        page.goto(place.as_uri())
        links = [link.get_attribute("href") or "" for link in page.locator("a.version").all()]
        assert len(links) == 6
        assert all((place.parent / link).is_file() for link in links)


def test_without_javascript_only_the_browser_of_images_is_hidden(browser: Browser, report: Path) -> None:
    page = browser.new_page(java_script_enabled=False)
    page.goto(report.as_uri())
    assert page.get_by_role("heading", name="The least certain predictions").is_visible()
    assert not page.get_by_role("heading", name="Browse the images").is_visible()
    assert page.locator(".heat button").count() == 0
    page.close()


def contrast(one: str, other: str) -> float:
    """WCAG's contrast ratio of two `rgb(r, g, b)` colours."""
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    channels = [int(part) / 255 for part in colour[4:-1].split(",")]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
