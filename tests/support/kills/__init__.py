"""Training runs that are killed at random moments, continued, and compared bit for bit with undisturbed ones.

`python -m kills --offline 50 --online 50` (in `make faults`) does so; `tests/faults/test_kills.py` is a small part of
it. See `kills.__main__`.
"""
