"""Hours of what should not happen: threads, forks, kills, full disks, changing files, stores with faults.

``python -m benchmarks.soak --seconds 1800 --seed 1`` draws one round after another until the time is over. After each
one every sample must have come exactly as often as it should, and no thread, descriptor, process or file may be left.
"""
