"""The compiled engine of the host: a C++ library behind ctypes, equal to the NumPy engine to the bit.

Its text is in ``kernels/host``. Nothing here computes a pixel.
"""
