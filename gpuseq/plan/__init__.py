"""Everything random: which samples a batch holds, and the numbers drawn for each.

In NumPy; the compiled engine lends it its numbers by key, the same ones. No image is read here, and no array lives on a
device.
"""
