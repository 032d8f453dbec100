"""Recipes: one short plugin each."""
