"""Formats of other programs, and folders of memory maps, from which datasets are read and to which they are written."""
