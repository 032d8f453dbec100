"""What every packed model carries: its `model.py` and `test.py`. They run inside a submission, not here."""
