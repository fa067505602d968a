"""Cut Banepa and two sites of Zanzibar into blocks that train, validate and test.

    python -m paper.cut_towns FOLDER --out runs/towns
    python -m paper.cut_towns FOLDER --parts 8 --out runs/town_parts
    python -m paper.cut_towns FOLDER --parts 8 --fine --out runs/fine_parts
    python -m paper.cut_towns FOLDER --sites --out runs/sites

FOLDER holds `banepa/banepa_0p30m.tif`, `zanzibar/zanzibar_A_0p30m.tif`,
`zanzibar/zanzibar_B_0p30m.tif`, beside each its `_mask.tif` and the `buildings.geojson`
of its town: drone imagery of OpenAerialMap at 0.30 m with outlines of OpenStreetMap.
The blocks `train`, `validation` and `test` have masks; those of `--parts`, of which a
study takes turns to test each, have the outlines of all, at 0.15 m if they are `--fine`
(`_0p15m.tif`). `--sites` are whole and at 0.15 m, with outlines; of Banepa the south,
which the sample that comes with the project tests on, is apart.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

import rasterio
from rasterio.crs import CRS
from rasterio.windows import Window

from bdloss.geo.outline_writer import write_outlines
from bdloss.geo.vector import read_outlines

SITES = ("banepa/banepa", "zanzibar/zanzibar_A", "zanzibar/zanzibar_B")
Blocks = Mapping[str, tuple[float, float]]
# Parts of the longer side of a site. Strips lie between, so that no roof is in two.
BLOCKS: Blocks = {"train": (0.0, 0.6), "validation": (0.6, 0.75), "test": (0.75, 1.0)}
STRIP = 10  # metres
# The sample's test scene begins at row 1181 of the 1814 of Banepa at 0.30 m.
SOUTH = (1181 - STRIP / 0.3) / 1814
WHOLE: Mapping[str, Blocks] = {
    "banepa": {"north": (0.0, SOUTH), "south": (SOUTH, 1.0)},
    "zanzibar_A": {"all": (0.0, 1.0)},
    "zanzibar_B": {"all": (0.0, 1.0)},
}
DEGREES = CRS.from_epsg(4326)


def equal_parts(number: int) -> Blocks:
    """Return blocks of one size, named by their number from 1."""
    return {str(1 + n): (n / number, (n + 1) / number) for n in range(number)}


def cut_site(
    image: Path, name: str, out: Path, blocks: Blocks = BLOCKS, masks: bool = True
) -> None:
    """Write the blocks of a site, and their masks unless these are not wanted."""
    mask = image.with_name(f"{image.stem}_mask.tif")
    # The rim that reprojection left is black, and counts for nothing.
    files = [(image, "images", 0), (mask, "masks", None)]
    for path, folder, nodata in files if masks else files[:1]:
        with rasterio.open(path) as source:
            strip = round(STRIP / source.res[0])
            found = find_blocks(source.height, source.width, blocks, strip)
            for block, window in found.items():
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


def find_blocks(
    height: int, width: int, blocks: Blocks, strip: int
) -> dict[str, Window]:
    """Return the window of each block, along the longer side of a site."""
    length = max(height, width)
    windows = {}
    for block, (first, last) in blocks.items():
        start = round(first * length) + (strip if first else 0)
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
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--parts", type=int, help="so many blocks, all alike")
    how.add_argument("--sites", action="store_true", help="whole, at 0.15 m")
    parser.add_argument("--fine", action="store_true", help="parts at 0.15 m")
    given = parser.parse_args()
    if given.fine and not given.parts:
        parser.error("--fine is of --parts")
    masks = not (given.parts or given.sites)
    for site in SITES:
        name = Path(site).name
        blocks = equal_parts(given.parts) if given.parts else BLOCKS
        blocks = WHOLE[name] if given.sites else blocks
        resolution = "0p15m" if given.sites or given.fine else "0p30m"
        image = given.folder / f"{site}_{resolution}.tif"
        cut_site(image, name, given.out, blocks, masks)
    if not masks:
        towns = dict.fromkeys(Path(site).parent for site in SITES)
        files = [given.folder / town / "buildings.geojson" for town in towns]
        outlines = [one for file in files for one in read_outlines(file, DEGREES)]
        write_outlines(given.out / "buildings.geojson", outlines, DEGREES)
    images = list((given.out / "images").glob("*.tif"))
    print(f"{given.out}: {len(images)} scenes of {len(SITES)} sites")


if __name__ == "__main__":
    main()
