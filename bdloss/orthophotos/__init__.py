"""Geography: rasters, windows, seamless merging, polygons."""
