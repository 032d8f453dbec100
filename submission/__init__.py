"""Scores wired models on Brain-Score: brain model, offline benchmarks, results database."""
