"""What the frameworks share: batches made ahead, tensors handed over, passes of loaders.

Only functions that are called for a framework import it.
"""
