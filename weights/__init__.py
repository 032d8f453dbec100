"""Trained weights that ship with the package: none yet."""
