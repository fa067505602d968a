"""Geography: rasters and vectors, no learning."""
