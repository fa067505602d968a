"""Cut the sample scenes of Banepa out of the orthophoto of the town.

python samples/make_banepa.py FOLDER, where FOLDER holds `banepa_0p30m.tif` and
`buildings.geojson`, writes `samples/banepa/`.
"""

import sys
from pathlib import Path

import numpy as np
import pyogrio
import rasterio
import shapely.geometry
from rasterio.warp import transform_geom
from rasterio.windows import Window

SAMPLE = Path(__file__).parent / "banepa"
# Rows 1148 to 1181 lie between the scenes: a strip of 10 m that no roof spans, so
# that none is in both. The columns leave out the black rim of the orthophoto.
SCENES = {
    "banepa_north": Window(col_off=24, row_off=24, width=1328, height=1124),
    "banepa_south": Window(col_off=24, row_off=1181, width=1328, height=603),
}
JPEG = {
    "driver": "GTiff",
    "tiled": True,
    "blockxsize": 256,
    "blockysize": 256,
    "compress": "jpeg",
    "jpeg_quality": 85,
    "photometric": "ycbcr",
}
DEGREES = "EPSG:4326"  # what GeoJSON is written in
DECIMALS = 7  # of a degree: 1 cm


def cut_scene(source, window: Window, path: Path) -> shapely.Polygon:
    """Write a window of an orthophoto and return its extent in degrees."""
    pixels = source.read(window=window)
    if (pixels == 0).all(axis=0).any():
        raise ValueError(f"a scene has no black pixels, {path.name} has")
    profile = {
        "dtype": "uint8",
        "count": 3,
        "height": window.height,
        "width": window.width,
        "crs": source.crs,
        "transform": source.window_transform(window),
    }
    with rasterio.open(path, "w", **JPEG, **profile) as scene:
        scene.write(pixels)
    extent = shapely.box(*source.window_bounds(window))
    return shapely.geometry.shape(transform_geom(source.crs, DEGREES, extent))


def main(folder: Path) -> None:
    """Write the two scenes and the outlines that touch them."""
    (SAMPLE / "images").mkdir(parents=True, exist_ok=True)
    with rasterio.open(folder / "banepa_0p30m.tif") as source:
        extents = [
            cut_scene(source, window, SAMPLE / "images" / f"{name}.tif")
            for name, window in SCENES.items()
        ]
    _, _, wkb, (osm_id,) = pyogrio.raw.read(
        folder / "buildings.geojson", columns=["osm_id"]
    )
    outlines = shapely.from_wkb(wkb)
    touches = np.stack([shapely.intersects(outlines, extent) for extent in extents])
    kept = touches.any(axis=0)
    pyogrio.raw.write(
        SAMPLE / "buildings.geojson",
        wkb[kept],
        [osm_id[kept]],
        ["osm_id"],
        geometry_type="Polygon",
        crs=DEGREES,
        layer_options={"COORDINATE_PRECISION": DECIMALS, "RFC7946": "YES"},
    )
    counts = dict(zip(SCENES, touches.sum(axis=1).tolist(), strict=True))
    print(f"outlines: {counts}, in both {touches.all(axis=0).sum()}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
