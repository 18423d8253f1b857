"""Fault injection: damaged files, killed processes and full disks, with what Saccade makes of them.

    python -m tools.fuzz                     # every part, as `make fuzz` runs them
    python -m tools.fuzz videos --cases 10000 --seed 0 --jobs 2
    python -m tools.fuzz videos --case 4711  # one failing case again, with its file kept

A case is a number: all that happens in it is drawn from that number. `tools.fuzz.__main__` has the options.
"""
