"""What `locks.py` is made of."""
