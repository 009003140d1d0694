"""A local web page for the translation: rasters and maps as tiles, rendered live.

raster ──► cells of its one lattice ──► the generator's thread ──► exact blend ──► XYZ tile
"""
