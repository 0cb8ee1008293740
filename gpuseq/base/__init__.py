"""What every room may use: errors, checks of arguments, names of types, devices, machine, threads, atomic files.

It imports nothing of gpuseq.
"""
