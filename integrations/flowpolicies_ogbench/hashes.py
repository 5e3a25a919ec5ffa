"""Known hashes of OGBench's published files."""

SHA256: dict[str, str] = {}
"""SHA-256 of a published file by its name (`sha256sum *.npz` prints them), checked by every download.

OGBench publishes none, and we list only what two independent downloads agreed on: so far nothing. Without an entry the
hash is taken at the first download and checked from then on.
"""
