"""The names of a store's files, and what tells whether their bytes are those that were written."""

import hashlib
from pathlib import Path

SCHEMA = 1
MANIFEST = "manifest.json"
TABLE = "segments.parquet"
RECORDINGS = "recordings.parquet"
INDEX = "index"
PARTS = "parts"  # what a preparation has begun
ADDITION = f"{PARTS}/addition"  # new tables and manifest of a store that is extended, whole once its manifest is there


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
