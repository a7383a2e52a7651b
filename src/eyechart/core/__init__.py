"""Records, errors, config, run store, images, geometry and statistics; no torch but in `devices`."""
