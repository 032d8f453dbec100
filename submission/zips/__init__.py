"""Submission zips: `wiring pack` makes one, `wiring check` tells what the platform would say of it."""
