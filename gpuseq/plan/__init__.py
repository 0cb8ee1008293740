"""Everything random, in pure NumPy: which samples a batch holds and the numbers drawn for each.

No image is read here, and no array lives on a device.
"""
