"""The page in a real browser: themes, phone, sorting, and nothing asked for or complained of."""

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from automix.reporting.page import report_html, write_report
from tests.reporting.browser import COMPLAINTS, REQUESTS, Page, chromium
from tests.reporting.test_page import a_report

PHONE = 390
_LUMINANCE = """(() => {
  const [r, g, b] = getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
})()"""
_FIRST_COLUMN = """[...document.querySelector('table.sortable').tBodies[0].rows]
  .map((row) => row.cells[0].textContent)"""
_NUMBERS = """[...document.querySelector('table.sortable').tBodies[0].rows]
  .map((row) => Number(row.cells[2].dataset.value))"""
_DECIDING_EDGE = """Math.max(...[...document.querySelectorAll('table.sortable tr')]
  .map((row) => row.cells[1].getBoundingClientRect().right))"""
_CLICK = "document.querySelectorAll('table.sortable thead button')[2].click()"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_report(a_report(), tmp_path_factory.mktemp("report")).as_uri()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium(tmp_path_factory.mktemp("browser")) as page:
        yield page


@pytest.mark.slow
@pytest.mark.parametrize("width", [PHONE, 1280])
@pytest.mark.parametrize("is_dark", [False, True])
def test_the_page_asks_for_nothing_and_complains_of_nothing(
    page: Page, url: str, width: int, is_dark: bool, tmp_path: Path
) -> None:
    page.open(url, width=width, is_dark=is_dark)
    assert (page.evaluate(_LUMINANCE) < 60) == is_dark
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "wider than the window"
    shown = ("narrow", "wide") if width == PHONE else ("wide", "narrow")
    heights = [
        page.evaluate(f"document.querySelector('figure .{name}').offsetHeight") for name in shown
    ]
    assert heights[0] > 100
    assert heights[1] == 0
    if width == PHONE:
        # The name and the column that decides need no scrolling.
        edge = page.evaluate(_DECIDING_EDGE)
        assert edge <= width, edge
    page.screenshot(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 10_000
    assert page.named(*COMPLAINTS) == []
    requests = [event["request"]["url"] for event in page.named(REQUESTS)]
    assert [request for request in requests if not request.startswith("data:")] == [url]


@pytest.mark.slow
def test_tables_sort_and_the_theme_changes_by_a_click(page: Page, url: str) -> None:
    page.open(url, width=1280, is_dark=False)
    page.evaluate("localStorage.clear()")
    names = page.evaluate(_FIRST_COLUMN)
    page.evaluate(_CLICK)
    assert page.evaluate(_NUMBERS) == sorted(page.evaluate(_NUMBERS))
    page.evaluate(_CLICK)
    assert page.evaluate(_NUMBERS) == sorted(page.evaluate(_NUMBERS), reverse=True)
    assert sorted(page.evaluate(_FIRST_COLUMN)) == sorted(names)
    page.evaluate("document.querySelector('.theme').click()")
    assert page.evaluate(_LUMINANCE) < 60
    page.evaluate("document.querySelector('.theme').click()")
    assert page.evaluate(_LUMINANCE) > 200
    assert page.named(*COMPLAINTS) == []


@pytest.mark.slow
def test_a_page_that_is_written_again_loads_itself_anew(page: Page, tmp_path: Path) -> None:
    path = tmp_path / "live.html"
    path.write_text(report_html(dataclasses.replace(a_report(), reload_seconds=0.5)))
    page.open(path.as_uri(), width=PHONE, is_dark=False)
    page.evaluate("window.scrollTo(0, 500)")
    path.write_text(report_html(a_report()))
    for _ in range(100):
        time.sleep(0.1)
        # The browser goes back to the place once the page is loaded.
        if page.evaluate("[document.body.dataset.reload ?? null, window.scrollY]") == [None, 500]:
            break
    assert page.evaluate("[document.body.dataset.reload ?? null, window.scrollY]") == [None, 500]
    requests = {event["request"]["url"] for event in page.named(REQUESTS)}
    assert {url for url in requests if not url.startswith("data:")} == {path.as_uri()}
    assert page.named(*COMPLAINTS) == []


@pytest.mark.slow
def test_complaints_and_requests_would_be_seen(page: Page, url: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.html"
    path.write_text("<img src='missing.png'><script>nothing.there</script>")
    page.open(path.as_uri(), width=PHONE, is_dark=False)
    assert page.named("Runtime.exceptionThrown")
    assert len(page.named(REQUESTS)) == 2
