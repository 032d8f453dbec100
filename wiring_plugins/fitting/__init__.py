"""From trained weights to the small distributions that others are sampled from."""
