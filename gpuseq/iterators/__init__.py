"""Keras' iterators: a plan is drawn, images are fetched, transformed and handed out with their labels.

Nothing here knows a training framework.
"""
