"""Files of others: each rule of docs/security.md."""

import http.server
import re
import threading
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rasterio.shutil import copy

from bdloss import models
from bdloss.geo import raster, trust, vector
from bdloss_tests.scenes import UTM, make_scene, write_raster

RAW = """<VRTDataset rasterXSize="4" rasterYSize="4">
<VRTRasterBand dataType="Byte" band="1" subClass="VRTRawRasterBand">
<SourceFilename relativeToVRT="0">/etc/passwd</SourceFilename>
<ImageOffset>0</ImageOffset><PixelOffset>1</PixelOffset><LineOffset>4</LineOffset>
</VRTRasterBand></VRTDataset>"""
SIMPLE = """<VRTDataset rasterXSize="4" rasterYSize="4">
<VRTRasterBand dataType="Byte" band="1"><SimpleSource>
<SourceFilename relativeToVRT="{relative}">{name}</SourceFilename>
<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"""
WMS = """<GDAL_WMS><Service name="TMS"><ServerUrl>{url}/${{z}}/${{x}}/${{y}}</ServerUrl>
</Service><DataWindow><UpperLeftX>0</UpperLeftX><UpperLeftY>0</UpperLeftY>
<LowerRightX>9</LowerRightX><LowerRightY>9</LowerRightY><TileLevel>1</TileLevel>
</DataWindow><BandsCount>3</BandsCount></GDAL_WMS>"""


@pytest.fixture
def server():
    """A server that is never asked, and what it was asked for."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{served.server_port}", asked
        served.shutdown()


@pytest.mark.parametrize("lower", [False, True])
@pytest.mark.parametrize(
    "prefix", ["", "/vsicurl/", "GTIFF_DIR:1:/vsicurl/", "WMTS:", "&lt;VRTDataset"]
)
def test_what_a_virtual_raster_names_is_not_fetched(tmp_path, server, prefix, lower):
    url, asked = server
    path = tmp_path / "a.vrt"
    text = SIMPLE.format(relative=0, name=f"{prefix}{url}/a.tif")
    path.write_text(text.replace("SourceFilename", "sourcefilename") if lower else text)
    with pytest.raises(ValueError, match="--allow-remote allows others"):
        raster.open_raster(path)
    assert not asked


def test_what_a_virtual_raster_names_is_fetched_if_that_is_allowed(
    tmp_path, server, monkeypatch
):
    url, asked = server
    monkeypatch.setenv(trust.ALLOW_REMOTE, "1")
    path = tmp_path / "a.vrt"
    path.write_text(SIMPLE.format(relative=0, name=f"/vsicurl/{url}/a.tif"))
    with pytest.raises(ValueError, match="damaged"), raster.open_raster(path) as source:
        raster.read_pixels(source, raster.Window(0, 0, 4, 4))
    assert asked


def test_a_map_service_of_the_name_of_a_raster_is_none(tmp_path, server):
    url, asked = server
    path = tmp_path / "a.tif"
    path.write_text(WMS.format(url=url))
    with pytest.raises(ValueError, match="not a raster"):
        raster.open_raster(path)
    inside = tmp_path / "b.vrt"
    inside.write_text(SIMPLE.format(relative=1, name="a.tif"))
    with pytest.raises(ValueError, match=r"not a raster, but text .*: .*a\.tif"):
        raster.open_raster(inside)
    assert not asked


@pytest.mark.parametrize("allowed", ["0", "1"])
def test_bytes_of_any_file_are_no_pixels(tmp_path, monkeypatch, allowed):
    monkeypatch.setenv(trust.ALLOW_REMOTE, allowed)
    path = tmp_path / "a.vrt"
    path.write_text(RAW.replace("VRTRaw", "vrtraw"))  # GDAL does not mind
    outer = tmp_path / "b.vrt"
    outer.write_text(SIMPLE.format(relative=1, name="a.vrt"))
    for one in (path, outer):
        with pytest.raises(ValueError, match="not of the bytes of any file"):
            raster.open_raster(one)


def test_a_virtual_raster_runs_no_python(tmp_path):
    path = tmp_path / "a.vrt"
    text = SIMPLE.format(relative=1, name="a.tif")
    path.write_text(
        text.replace(
            "<SimpleSource>",
            "<PixelFunctionLanguage>Python</PixelFunctionLanguage><SimpleSource>",
        )
    )
    with pytest.raises(ValueError, match="must not run Python"):
        raster.open_raster(path)


def test_a_virtual_raster_of_local_files_is_read(tmp_path):
    pixels, _ = make_scene(1, 30, 40)
    image = write_raster(tmp_path / "a.tif", pixels)
    inner, outer = tmp_path / "inner.vrt", tmp_path / "outer.vrt"
    copy(image, inner, driver="VRT")
    copy(inner, outer, driver="VRT")
    with raster.open_raster(outer) as source:
        found = raster.read_pixels(source, raster.Window(0, 0, 30, 40))
    np.testing.assert_array_equal(found, pixels)


def test_a_virtual_raster_that_is_no_xml_is_named(tmp_path):
    path = tmp_path / "a.vrt"
    path.write_text("<VRTDataset><VRTRasterBand>")
    with pytest.raises(ValueError, match=r"damaged raster: .*a\.vrt"):
        raster.open_raster(path)


def test_outlines_are_no_virtual_source(tmp_path, server):
    url, asked = server
    path = tmp_path / "a.geojson"
    path.write_text(
        '<OGRVRTDataSource><OGRVRTLayer name="a"><SrcDataSource>'
        f"{url}/a.geojson</SrcDataSource></OGRVRTLayer></OGRVRTDataSource>"
    )
    with pytest.raises(ValueError, match="must not be a virtual source"):
        vector.read_outlines(path, UTM)
    assert not asked


def test_a_model_that_would_fill_the_memory_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "model.keras"
    models.save_model(models.build_model(filters=2, blocks=1), path, {})
    monkeypatch.setattr(
        zipfile.ZipFile, "infolist", lambda _: [SimpleNamespace(file_size=2**50)]
    )
    with pytest.raises(ValueError, match="this machine has"):
        models.load_model(path)


def test_a_virtual_raster_of_itself_is_an_end(tmp_path):
    path = tmp_path / "a.vrt"
    path.write_text(SIMPLE.format(relative=1, name="a.vrt"))
    assert trust.local_sources(path) == [path]
    with pytest.raises(ValueError, match="raster"), raster.open_raster(path) as source:
        raster.read_pixels(source, raster.Window(0, 0, 4, 4))


def test_pixels_that_look_like_text_are_pixels(tmp_path):
    pixels = np.full((30, 40, 3), ord("<"), np.uint8)
    path = write_raster(tmp_path / "a.img", pixels, driver="ENVI")
    with raster.open_raster(path) as source:
        found = raster.read_pixels(source, raster.Window(0, 0, 30, 40))
    np.testing.assert_array_equal(found, pixels)


@pytest.mark.parametrize("prefix", ["", "/vsicurl/"])
def test_an_address_that_is_typed_is_fetched(web, prefix):
    folder, address = web
    pixels, _ = make_scene(3, 40, 50)
    write_raster(folder / "town.tif", pixels)
    with raster.open_raster(trust.path_of(f"{prefix}{address}/town.tif")) as source:
        np.testing.assert_array_equal(source.read(), np.moveaxis(pixels, -1, 0))


@pytest.mark.parametrize(
    "address",
    [
        "http://h/a.tif",
        "https://h//a///b.tif",
        "/vsicurl/https://h/a/b.tif",
        "https://h/a/b.tif?sig=x%2Fy.z&se=2026",
        "https://h/b.tif?",
        "https://h/s/?file=7",
        "ftp://h/b.tif?a=b?c",
    ],
)
def test_an_address_survives_as_a_path(address):
    path = trust.path_of(address)
    expected = f"/vsicurl/{address.removeprefix('/vsicurl/')}"
    assert trust.gdal_name(path)[0] == expected
    assert trust.gdal_name(address)[0] == expected
    name = expected.partition("?")[0].rpartition("/")[2]
    assert path.name == (name or "%2F")


def test_slashes_in_a_query_are_those_that_servers_read():
    path = trust.path_of("https://h/get?file=a//b.tif")
    assert path.name == "get"
    assert trust.gdal_name(path)[0] == "/vsicurl/https://h/get?file=a%2F%2Fb.tif"


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("s3://bucket/a.tif", "/vsis3/bucket/a.tif"),
        ("/vsis3/bucket/a.tif", "/vsis3/bucket/a.tif"),
        (
            "/vsizip//vsicurl/http://h/a.zip/b.tif",
            "/vsizip/vsicurl/http://h/a.zip/b.tif",
        ),
        ("a/http.tif", "a/http.tif"),
        ("what?.tif", "what?.tif"),
    ],
)
def test_what_is_no_web_address_is_a_path(typed, name):
    assert trust.path_of(typed) == Path(typed)
    assert trust.gdal_name(trust.path_of(typed))[0] == name


@pytest.mark.parametrize("query", ["", "?key=a/b.c"])
def test_an_address_that_is_not_there_is_named_as_it_was_typed(web, query):
    address = f"{web[1]}/town.tif{query}"
    shown = re.escape(address.replace("a/b", "a%2Fb"))
    with pytest.raises(FileNotFoundError, match=f"^no such file: {shown}$"):
        raster.open_raster(trust.path_of(address))


def test_a_virtual_raster_from_elsewhere_is_not_opened(web, tmp_path, monkeypatch):
    folder, address = web
    write_raster(tmp_path / "private.tif", make_scene(3, 40, 50)[0])
    copy(tmp_path / "private.tif", folder / "town.vrt", driver="VRT")
    text = (folder / "town.vrt").read_text()
    (folder / "town.vrt").write_text(
        re.sub(r'relativeToVRT="1">[^<]*', f">{tmp_path / 'private.tif'}", text)
    )
    with pytest.raises(FileNotFoundError, match="no such"):
        raster.open_raster(Path(f"{address}/town.vrt"))
    monkeypatch.setenv(trust.ALLOW_REMOTE, "1")
    raster.open_raster(Path(f"{address}/town.vrt")).close()


def test_a_raster_in_an_archive_is_read_where_it_lies(tmp_path):
    pixels, _ = make_scene(3, 40, 50)
    path = write_raster(tmp_path / "town.tif", pixels)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(path, "deep/town.tif")
    path.unlink()
    name = Path(f"/vsizip/{tmp_path}/a.zip/deep/town.tif")
    assert "//" not in str(name)
    with raster.open_raster(name) as source:
        np.testing.assert_array_equal(source.read(), np.moveaxis(pixels, -1, 0))
