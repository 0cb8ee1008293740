"""The engine on CUDA: kernels compiled and launched through CuPy, device memory, copies.

Nothing outside this folder launches a kernel.
"""
