"""Trained weights that ship with the package: `manifest.json` and small delta files beside it."""
