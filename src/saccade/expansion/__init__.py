"""Progressive network expansion: the search that X3D came from, for any data set and any budget."""
