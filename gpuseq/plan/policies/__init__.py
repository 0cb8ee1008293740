"""The modern augmentations as values: what may be drawn, and how drawn numbers become steps of a program.

Nothing here holds a generator or sees an image.
"""
