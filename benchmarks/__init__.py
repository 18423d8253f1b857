"""One command per claim. ``python -m benchmarks`` runs them all, ``python -m benchmarks NAME`` one."""
