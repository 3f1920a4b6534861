"""Trained networks at work: one image, files of them, and networks for other engines."""
