"""Cut Banepa and two sites of Zanzibar into blocks that train, validate and test.

    python -m paper.cut_towns FOLDER --out runs/towns

FOLDER holds `banepa/banepa_0p30m.tif`, `zanzibar/zanzibar_A_0p30m.tif`,
`zanzibar/zanzibar_B_0p30m.tif` and beside each its `_mask.tif`: drone imagery of
OpenAerialMap at 0.30 m with outlines of OpenStreetMap.
"""

import argparse
from pathlib import Path

import rasterio
from rasterio.windows import Window

SITES = ("banepa/banepa", "zanzibar/zanzibar_A", "zanzibar/zanzibar_B")
# Parts of the longer side of a site. Strips lie between, so that no roof is in two.
BLOCKS = {"train": (0.0, 0.6), "validation": (0.6, 0.75), "test": (0.75, 1.0)}
STRIP = 33  # pixels, 10 m


def cut_site(image: Path, name: str, out: Path) -> None:
    """Write the blocks of a site and their masks."""
    mask = image.with_name(f"{image.stem}_mask.tif")
    # The rim that reprojection left is black, and counts for nothing.
    for path, folder, nodata in ((image, "images", 0), (mask, "masks", None)):
        with rasterio.open(path) as source:
            for block, window in find_blocks(source.height, source.width).items():
                place = {
                    "height": window.height,
                    "width": window.width,
                    "transform": source.window_transform(window),
                }
                target = out / folder / f"{name}_{block}.tif"
                target.parent.mkdir(parents=True, exist_ok=True)
                profile = {"driver": "GTiff", "tiled": True, "compress": "deflate"}
                settings = {
                    "count": source.count,
                    "dtype": source.dtypes[0],
                    "crs": source.crs,
                    "nodata": nodata,
                }
                with rasterio.open(target, "w", **profile, **settings, **place) as file:
                    file.write(source.read(window=window))


def find_blocks(height: int, width: int) -> dict[str, Window]:
    """Return the window of each block, along the longer side of a site."""
    length = max(height, width)
    windows = {}
    for block, (first, last) in BLOCKS.items():
        start = round(first * length) + (STRIP if first else 0)
        side = round(last * length) - start
        windows[block] = (
            Window(0, start, width, side)
            if height >= width
            else Window(start, 0, side, height)
        )
    return windows


def main() -> None:
    """Cut all sites."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the sites are")
    parser.add_argument("--out", type=Path, default=Path("runs/towns"))
    given = parser.parse_args()
    for site in SITES:
        cut_site(given.folder / f"{site}_0p30m.tif", Path(site).name, given.out)
    print(f"{given.out}: {len(SITES)} sites, each in {len(BLOCKS)} blocks")


if __name__ == "__main__":
    main()
