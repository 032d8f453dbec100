"""Statistics sources: the small distributions that initialisers sample from, one plugin each."""
