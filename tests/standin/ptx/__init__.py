"""An interpreter of the PTX that NVRTC makes of the kernels, so that the compiled code runs where there is no GPU.

`compiler` asks NVRTC, `parse` reads its text, `encode` turns one kernel into the rows that `core/machine.cpp` runs,
`machine` launches them, and `runner` puts all that in CuPy's place. It is slow and strict: bounds, alignment, races,
barriers that not all threads reach, reads of registers and shared memory that were not written, and instructions that
it does not know are errors, which name the line of the PTX. What it cannot show is time.
"""
