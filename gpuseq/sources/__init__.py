"""Where images are kept and fetched from by sample number: arrays, files, caches, masks.

Nothing here transforms them.
"""
