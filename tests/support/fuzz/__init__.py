"""Damaged and hostile files, made from seeds, and read as users read them, under limits and under an audit hook.

`python -m fuzz --cases 20000` (in `make faults`) runs a campaign and prints what became of the cases of each kind; see
`fuzz.__main__`. `tests/faults/test_fuzz.py` runs a small one.
"""
