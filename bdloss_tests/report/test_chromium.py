"""A report in Chromium: `make test-browser`."""

import shutil
from dataclasses import replace

import pytest

from bdloss.report.prediction import write_report
from bdloss_tests.report.town import CLASS, NAME, judge, predict_town, write_other

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


TILES = "[...document.querySelectorAll('#map .leaflet-tile')]"
IS_DRAWN = "tile => tile.complete && tile.naturalWidth > 0"


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"]
        )
        yield opened
        opened.close()


@pytest.fixture
def opened(browser, tmp_path):
    """A report in the browser, and what went wrong or out of it."""
    prediction = replace(predict_town(tmp_path), other=write_other(tmp_path))
    path = tmp_path / "report.html"
    write_report(prediction, path, judge(prediction))
    page, seen = browser.new_page(viewport={"width": 1200, "height": 800}), []
    page.on("console", lambda message: seen.append(message.text))
    page.on("pageerror", lambda error: seen.append(str(error)))
    page.on("dialog", lambda dialog: (seen.append("a dialog"), dialog.dismiss()))
    page.on(
        "request",
        lambda asked: seen.append(asked.url) if "data:" not in asked.url[:5] else None,
    )
    page.goto(path.as_uri())
    until(page, f"({TILES}).length > 0 && ({TILES}).every({IS_DRAWN})")
    assert seen.pop(0).startswith("file://")  # itself
    yield page, seen
    assert seen == []
    page.close()


def until(page, holds):
    """Wait for an expression; the page lets no function be made of a text."""
    for _ in range(100):
        if page.evaluate(holds):
            return
        page.wait_for_timeout(100)
    raise AssertionError(holds)


def outlines(page, number):
    return page.locator(f".leaflet-layer{number}-pane path")


def test_layers_are_switched_and_faded(opened):
    page, _ = opened
    assert NAME in page.title()
    names = page.locator(".layer label").all_inner_texts()
    assert [name.strip() for name in names] == [
        *("orthophoto", "probability", "missed", "false"),
        *("truth", "prediction", f"other prediction: {CLASS}"),
    ]
    drawn = outlines(page, 5)
    assert drawn.count() > 5
    page.get_by_label("prediction", exact=True).uncheck()
    assert drawn.count() == 0
    page.get_by_label("prediction", exact=True).check()
    assert drawn.count() > 5
    fade = page.get_by_label("opacity of truth")
    fade.fill("30")
    pane = page.locator(".leaflet-layer4-pane")
    assert pane.evaluate("one => one.style.opacity") == "0.3"


def test_a_click_on_a_building_tells_its_attributes(opened):
    page, _ = opened
    table = page.locator(".leaflet-popup-content table")
    page.locator("#swipe").fill("100")
    box = outlines(page, 5).first.bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    table.wait_for()
    assert "area_m2" in table.inner_text()
    page.keyboard.press("Escape")
    table.wait_for(state="detached")
    page.locator("#swipe").fill("0")
    box = outlines(page, 6).first.bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    table.wait_for()
    assert CLASS in table.inner_text()


def test_enter_tells_of_the_building_in_the_middle(opened):
    page, _ = opened
    page.get_by_label("prediction", exact=True).uncheck()
    page.locator("#map").focus()
    page.keyboard.press("Enter")
    table = page.locator(".leaflet-popup-content table")
    table.wait_for()
    assert CLASS in table.inner_text()  # of what is shown


def test_the_list_jumps_with_the_keyboard_too(opened):
    page, _ = opened
    before = page.evaluate("report.getZoom()")
    page.locator("#places button").first.focus()
    page.keyboard.press("Enter")
    until(page, f"report.getZoom() != {before}")
    page.locator("#map").focus()
    middle = page.evaluate("report.getCenter().lng")
    page.keyboard.press("ArrowRight")
    until(page, f"report.getCenter().lng > {middle}")


def test_a_swipe_cuts_both_predictions(opened):
    page, _ = opened
    page.locator("#swipe").fill("25")
    cuts = [
        page.locator(f".leaflet-layer{number}-pane").evaluate("a => a.style.clipPath")
        for number in (5, 6)
    ]
    assert all(cut.startswith("polygon(") for cut in cuts) and cuts[0] != cuts[1]


def test_it_fits_a_phone(opened):
    page, _ = opened
    page.set_viewport_size({"width": 360, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.locator("#map").bounding_box()["height"] > 200
    page.locator("#places button").last.click()
    box = page.locator("#map").bounding_box()
    assert box["y"] >= -1 and box["y"] + box["height"] <= 701  # it is in sight
