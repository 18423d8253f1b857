"""Temporal sampling, views and crops, protocols by name, and windows over whole videos."""
