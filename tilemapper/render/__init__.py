"""From a raster to its map: plan, blocks, engine, staging, finish."""
