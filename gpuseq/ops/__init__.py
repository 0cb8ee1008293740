"""The arithmetic on batches: one contract an operation (`dispatch`), one engine a folder.

Nothing here draws a number, opens a file or knows Keras' protocol.
"""
