"""The version, in a file of its own: neither the build nor ``saccade --version`` imports anything else."""

__version__ = "0.1.0"
