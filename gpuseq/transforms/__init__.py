"""What a generator does to a batch once its numbers are drawn: settings, transforms, normalisation, statistics.

Nothing here draws, and nothing here fetches.
"""
