"""Rasters as the network wants them: opened safely, scaled, resampled, cut, blended."""
