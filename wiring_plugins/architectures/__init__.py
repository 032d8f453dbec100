"""Networks that recipes wire."""
