"""Encoded files to pixels: headers, Pillow, NVIDIA's decoders. Nothing here knows batches, labels or transforms."""
