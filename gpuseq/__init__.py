"""Keras' image generators with the work on the GPU: same arguments, same seed, same batch."""

__version__ = "0.1.0"
