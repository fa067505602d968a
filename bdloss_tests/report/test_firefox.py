"""A report in Firefox, by Mozilla's own driver: `make test-browser`."""

import shutil
import time
from dataclasses import replace

import pytest

from bdloss.report.prediction import write_report
from bdloss_tests.report.town import CLASS, NAME, judge, predict_town, write_other

marionette = pytest.importorskip("marionette_driver.marionette")
FIREFOX = shutil.which("firefox-esr") or shutil.which("firefox")
pytestmark = pytest.mark.skipif(FIREFOX is None, reason="firefox is not installed")


@pytest.fixture
def page(tmp_path):
    """A report in the browser."""
    prediction = replace(predict_town(tmp_path), other=write_other(tmp_path))
    write_report(prediction, tmp_path / "report.html", judge(prediction))
    browser = marionette.Marionette(
        bin=FIREFOX, headless=True, startup_timeout=300, gecko_log="-"
    )
    try:
        browser.start_session()
        browser.navigate((tmp_path / "report.html").as_uri())
        yield browser
    finally:
        browser.quit()


def until(page, holds):
    """Wait for an expression."""
    for _ in range(300):
        if page.execute_script(f"return {holds}"):
            return
        time.sleep(0.1)
    raise AssertionError(holds)


def test_layers_attributes_places_and_the_swipe(page):
    tiles = "[...document.querySelectorAll('#map .leaflet-tile')]"
    drawn = "every(tile => tile.complete && tile.naturalWidth > 0)"
    until(page, f"{tiles}.length > 0 && {tiles}.{drawn}")
    assert NAME in page.title
    assert CLASS in page.find_element("id", "layers").text
    fetched = "performance.getEntriesByType('resource')"
    outside = f"{fetched}.filter(one => !one.name.startsWith('data:')).length"
    assert page.execute_script(f"return {outside}") == 0
    drawn = "document.querySelectorAll('.leaflet-layer5-pane path')"
    until(page, f"{drawn}.length > 5")
    page.execute_script("document.querySelectorAll('.layer input')[10].click()")
    until(page, f"{drawn}.length == 0")
    page.execute_script("document.querySelectorAll('.layer input')[10].click()")
    until(page, f"{drawn}.length > 5")
    click = "dispatchEvent(new MouseEvent('click', {bubbles: true}))"
    page.execute_script(f"{drawn}[0].{click}")
    popup = "document.querySelector('.leaflet-popup-content')"
    until(page, f"{popup} && {popup}.innerText.includes('area_m2')")
    zoom = "document.querySelector('.leaflet-proxy').style.transform"
    before = page.execute_script(f"return {zoom}")
    page.execute_script("document.querySelector('#places button').click()")
    until(page, f"{zoom} != {before!r}")
    cut = "getComputedStyle(document.querySelector('.leaflet-layer5-pane')).clipPath"
    before = page.execute_script(f"return {cut}")
    assert before.startswith("polygon(")
    page.execute_script(
        "const one = document.getElementById('swipe'); one.value = 20;"
        "one.dispatchEvent(new Event('input'))"
    )
    until(page, f"{cut} != {before!r}")
