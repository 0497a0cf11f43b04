"""Exact judges: they read a picture or a sentence back into what its world can say."""
