"""What a generator does to a batch once its numbers are drawn: settings, transforms, normalisation, statistics.

Nothing here fetches. Nothing here draws but `fitting`, which asks the generator for what `fit(augment=True)` needs.
"""
