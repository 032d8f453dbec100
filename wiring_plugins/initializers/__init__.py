"""Initialisers: pure functions that draw a layer's weights, one plugin each."""
