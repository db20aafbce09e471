"""The comparison in a real browser."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tasks.core.reports.compare.page import write_comparison
from tasks.core.reports.compare.runs import load_runs
from tasks.core.store import open_store


@pytest.fixture(
    scope="module", params=[("previous", "current"), ("current", "previous", "current")], ids=["two", "three"]
)
def comparison(request: pytest.FixtureRequest, two_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store, path = open_store(two_runs), tmp_path_factory.mktemp("comparison") / "comparison.html"
    write_comparison(path, store, load_runs(store, request.param))
    return path


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_fits_loads_nothing_and_logs_nothing(browser: Browser, comparison: Path, scheme: str, width: int) -> None:
    messages: list[str] = []
    requests: list[str] = []
    page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 900})  # type: ignore[arg-type]
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(comparison.as_uri())
    open_all(page)

    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("[...document.querySelectorAll('section')].every(section => section.clientHeight > 0)")
    assert messages == []
    assert [url for url in requests if not url.startswith(("data:", "file:"))] == []
    page.close()


def test_the_verdict_is_visible_on_a_phone_without_scrolling(browser: Browser, comparison: Path) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.goto(comparison.as_uri())

    assert page.evaluate("document.querySelector('.lead').getBoundingClientRect().bottom") < 844
    page.close()


def test_flipped_images_have_both_predictions(browser: Browser, comparison: Path) -> None:
    page = browser.new_page()
    page.goto(comparison.as_uri())
    open_all(page)
    cards = page.locator(".cards li")

    pair = page.locator("#fixed").count() == 1
    assert (cards.count() > 0) == pair
    for card in cards.all():
        assert card.locator(".right").count() == card.locator(".wrong").count() == 1
        assert card.locator(".picture").bounding_box()["height"] > 30  # type: ignore[index]
    page.close()


def open_all(page: Page) -> None:
    for closed in page.locator("summary").all():
        closed.click()
