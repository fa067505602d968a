"""From an orthophoto to its map: windows, model, seamless rows, products."""
