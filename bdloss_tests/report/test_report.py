import base64
import hashlib
import json
import re
from dataclasses import replace

import cv2
import numpy as np
import pytest
import rasterio
import shapely

from bdloss.evaluation.predictions import PredictionScores
from bdloss.geo.orthophoto import Orthophoto
from bdloss.geo.outline_writer import write_outlines
from bdloss.geo.vector import read_outlines, read_table
from bdloss.geo.windows import Window
from bdloss.inference.predict import predict_raster
from bdloss.inference.products import Products
from bdloss.report import page
from bdloss.report.prediction import TENTHS, _encode, write_report
from bdloss.report.tiles import SIDE, make_pyramid
from bdloss_tests.inference.test_classes import LABEL, POTSDAM
from bdloss_tests.report.town import CLASS, NAME, judge, predict_town, write_other
from bdloss_tests.scenes import CORNER, UTM, write_raster


def data_of(text):
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.S)[1])


def test_a_page_runs_and_shows_only_what_is_in_it(tmp_path):
    path = tmp_path / "page.html"
    hostile = "</script><script>alert(1)</script>"
    page.write_page(path, hostile, "<main></main>", {"a": hostile}, with_map=True)
    text = path.read_text("utf-8")
    assert data_of(text) == {"a": hostile}
    assert hostile not in text and "&lt;script&gt;alert(1)" in text
    policy = re.search(r'Policy" content="([^"]*)"', text)[1]
    assert policy.startswith("default-src 'none'; img-src data:; ")
    for tag in ("style", "script"):
        inside = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.S)
        assert len(inside) == 2
        for one in inside:
            digest = base64.b64encode(hashlib.sha256(one.encode()).digest()).decode()
            assert f"'sha256-{digest}'" in policy
    assert "url(" not in re.search(r"<style>(.*?)</style>", text, re.S)[1]
    with pytest.raises(FileExistsError, match="exists; give --overwrite"):
        page.write_page(path, "", "", {})
    page.write_page(path, "", "", {}, overwrite=True)
    assert "script-src 'none'" in path.read_text()


def test_tables_hold_texts():
    table = page.table_of(["<b>"], [["1 & 2"]])
    assert "<th>&lt;b&gt;</th>" in table and "<td>1 &amp; 2</td>" in table


def read_band(path):
    with rasterio.open(path) as source:
        return source.read(1)


def decode(address):
    content = base64.b64decode(address.partition(",")[2])
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def decode_picture(picture):
    content = base64.b64decode(picture["source"].partition(",")[2])
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)


def test_tiles_are_the_orthophoto_from_coarse_to_fine(tmp_path):
    rows, cols = np.mgrid[:600, :700]
    pixels = np.dstack([rows // 3, cols // 3, 0 * rows]).astype(np.uint8)
    image = write_raster(tmp_path / "a.tif", pixels)
    with rasterio.open(image) as source:
        all_of_it = make_pyramid(source, 10_000_000)
        some = make_pyramid(source, 1, [Window(300, 100, 30, 500)])
    assert (all_of_it.finest, all_of_it.coarsest) == (0, 2)
    levels = {0: (3, 3), 1: (2, 2), 2: (1, 1)}
    assert set(all_of_it.tiles) == {
        f"{level}/{col}/{row}"
        for level, (down, right) in levels.items()
        for row in range(down)
        for col in range(right)
    }
    for level in levels:
        tile = decode(all_of_it.tiles[f"{level}/0/0"]).astype(int)
        assert tile.shape == (SIDE, SIDE, 3)
        side = 120  # of what is there at all levels
        at = (np.arange(side) * 2**level + (2**level - 1) / 2) / 3
        assert abs(tile[:side, 0, 0] - at).max() < 6
        assert abs(tile[0, :side, 1] - at).max() < 6
    beyond = decode(all_of_it.tiles["2/0/0"])[160:, 184:].astype(int)
    assert abs(beyond - 0x22).max() <= 8
    assert (some.finest, some.coarsest) == (2, 2)
    assert set(some.tiles) == {"2/0/0", "0/0/1", "0/1/1", "0/2/1"}


def test_outlines_come_in_tenths_of_a_pixel():
    house = shapely.Polygon(
        [(1, 2), (30.04, 2), (30.04, 41.26)], [[(5, 3), (9, 3), (9, 4)]]
    )
    rings = _encode(house)
    for ring, coded in zip(shapely.get_rings(house), rings, strict=True):
        points = np.cumsum(np.reshape(coded, (-1, 2)), axis=0) / TENTHS
        np.testing.assert_allclose(
            points, shapely.get_coordinates(ring)[:-1], atol=0.051
        )


def test_a_report_tells_truth_prediction_and_errors(tmp_path):
    prediction = replace(predict_town(tmp_path), other=write_other(tmp_path))
    path = tmp_path / "report.html"
    judged = judge(prediction)
    write_report(prediction, path, judged)
    text = path.read_text("utf-8")
    data = data_of(text)
    assert (data["height"], data["width"], data["finest"]) == (300, 400, 0)
    keys = [layer["key"] for layer in data["outlines"]]
    assert keys == ["truth", "predicted", "other"]
    _, found, other = data["outlines"]
    assert found["fields"] == ["id", "area_m2", "probability"]
    assert [row[0] for row in found["values"]] == [
        str(1 + i) for i in range(len(found["polygons"]))
    ]
    ((ring,),) = other["polygons"]
    corners = np.cumsum(np.reshape(ring, (-1, 2)), axis=0) / TENTHS
    assert {tuple(corner) for corner in corners} == {
        *((20, 30), (60, 30), (60, 80), (20, 80)),
    }
    pictures = {one["name"] for one in data["pictures"]}
    assert pictures == {"probability", "missed", "false"}
    assert [place["text"].split(",")[0] for place in data["places"]] == [
        f"IoU {one.iou:.2f}" for one in judged.errors.worst
    ]
    missed = decode_picture(next(p for p in data["pictures"] if p["name"] == "missed"))
    true, pred = map(read_band, (prediction.truth, prediction.mask))
    np.testing.assert_array_equal(missed[..., 3] > 0, (true == 1) & (pred == 0))
    assert 'id="swipe"' in text and "<td>Boundary IoU 3 px</td>" in text
    assert NAME not in text and CLASS not in text
    assert "Outlines of &lt;script&gt;" in text
    with pytest.raises(FileExistsError, match="give --overwrite"):
        write_report(prediction, path)


def test_without_truth_the_least_sure_buildings_are_places(tmp_path, monkeypatch):
    prediction = predict_town(tmp_path, truth=False)
    monkeypatch.setattr("bdloss.report.prediction.TILE_BYTES", 1)
    monkeypatch.setattr("bdloss.report.prediction.OUTLINE_BYTES", 900)
    write_report(prediction, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text("utf-8")
    data = data_of(text)
    likely = [
        float(re.match(r"probability (\S+),", p["text"])[1]) for p in data["places"]
    ]
    assert likely == sorted(likely) and len(likely) == 8
    assert data["finest"] == 1
    assert "averaged 2-fold here; the places listed are at full resolution" in text
    assert re.search(r"[1-9]\d* outlines did not fit into this page", text)
    assert 'id="swipe"' not in text and "Boundary IoU" not in text


def test_a_page_stays_small_whatever_is_in_it(tmp_path, monkeypatch):
    """A doubtful outline around all of it is no place as large, nor is a long text."""
    prediction = predict_town(tmp_path, 1200, 1300, truth=False)
    around = shapely.box(*CORNER @ (2, 1198), *CORNER @ (1298, 2))
    outlines = tmp_path / "around.gpkg"
    write_outlines(
        outlines,
        [around] * 3,
        UTM,
        probability=np.full(3, 0.1),
        **{"class": np.array(["a" * 300] * 3, object)},
    )
    monkeypatch.setattr("bdloss.report.prediction.TILE_BYTES", 1)
    monkeypatch.setattr("bdloss.report.prediction.OUTLINE_BYTES", 700)
    write_report(replace(prediction, outlines=outlines), tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text("utf-8")
    data = data_of(text)
    assert "2 outlines did not fit into this page" in text
    for place in data["places"]:
        assert (place["height"], place["width"]) == (512, 512)
        assert abs(place["row"] + 256 - 600) <= 1 and abs(place["col"] - 394) <= 1
    whole = [name for name in data["tiles"] if name.startswith("0/")]
    assert len(whole) == 9  # of 30

    # A level that turns out too large is left out whole.
    with rasterio.open(prediction.image) as source:
        size = sum(map(len, make_pyramid(source, 10**9).tiles.values()))
        monkeypatch.setattr("bdloss.report.tiles.GROWTH", 0.1)
        some = make_pyramid(source, size - 1)
    assert some.finest == 1
    assert not [name for name in some.tiles if name.startswith("0/")]


def test_a_page_says_what_its_margin_is(tmp_path, monkeypatch):
    prediction = predict_town(tmp_path)
    orthophoto = Orthophoto.read(prediction.image)
    truth = tmp_path / "truth.gpkg"
    outlines = read_outlines(prediction.outlines, UTM)
    write_outlines(truth, outlines, UTM)
    judged = PredictionScores(truth).add(
        orthophoto, prediction.mask, prediction.outlines, margin=0.5, judge=True
    )
    monkeypatch.setattr("bdloss.report.prediction.MASK_PIXELS", 1)
    promise = "90 % of the true walls of a scene, on average, lie within 0.5 m"
    write_report(replace(prediction, promise=promise), tmp_path / "a.html", judged)
    text = (tmp_path / "a.html").read_text("utf-8")
    assert f"Margin: {promise}, for scenes like those of its calibration." in text
    assert "100.0 % lie in the margin, which is 1.00 m wide on average." in text
    assert "The true mask is too large to be outlined here." in text


def test_outlines_of_others_need_no_attributes(tmp_path):
    prediction = predict_town(tmp_path, truth=False)
    houses = [shapely.box(*CORNER @ (5, 30), *CORNER @ (25, 10))] * 3
    unnamed = tmp_path / "unnamed.gpkg"
    write_outlines(unnamed, houses, UTM, storeys=np.arange(3))
    kinds = tmp_path / "kinds.geojson"
    write_outlines(kinds, houses, UTM, **{"class": np.array(["a", None, "b"], object)})
    write_report(
        replace(prediction, outlines=unnamed, other=kinds), tmp_path / "report.html"
    )
    data = data_of((tmp_path / "report.html").read_text("utf-8"))
    layers = {layer["name"]: layer for layer in data["outlines"]}
    assert layers["prediction"]["values"] == [[], [], []]
    assert layers.keys() == {
        *("prediction", "other prediction: a", "other prediction: b"),
        "other prediction",
    }
    assert data["places"] == []


def test_each_class_is_a_layer(tmp_path):
    image = write_raster(tmp_path / "town.tif", LABEL)
    products = Products.in_folder(tmp_path, "town", prob=True, min_area=0)
    predict_raster(image, POTSDAM, products, overlap=0)
    files = products.as_prediction(image, other=products.polygons)
    write_report(files, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text("utf-8")
    assert "<title>Outlines of town.tif</title>" in text
    data = data_of(text)
    with rasterio.open(image) as source:
        _, columns = read_table(products.polygons, source.crs, ["class", "id"])
    kinds, counts = np.unique(columns["class"], return_counts=True)
    colours = {}
    for key, name in (("predicted", "prediction"), ("other", "other prediction")):
        layers = [one for one in data["outlines"] if one["key"] == key]
        assert [one["name"] for one in layers] == [f"{name}: {kind}" for kind in kinds]
        assert [len(one["polygons"]) for one in layers] == counts.tolist()
        colours[key] = {one["name"].split(": ")[1]: one["colour"] for one in layers}
        assert len(set(colours[key].values())) == len(kinds) >= 3
        for layer, kind in zip(layers, kinds, strict=True):
            which = layer["fields"].index("class")
            assert {row[which] for row in layer["values"]} == {kind}
    assert colours["predicted"] == colours["other"]
    names = [one["name"] for one in data["pictures"]]
    assert names == [f"probability: {kind}" for kind in POTSDAM.targets]
    for picture, kind in zip(data["pictures"], POTSDAM.targets, strict=True):
        if kind in kinds:
            assert picture["colour"] == colours["other"][kind]
