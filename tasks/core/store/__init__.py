"""The store: versioned artifacts, run records, and the current run.

A version is named by the digest of its key. It is complete or absent, and never changes its bytes.
"""

from tasks.core.store.artifact import ArtifactRef
from tasks.core.store.current import open_store
from tasks.core.store.reader import DamagedArtifact
from tasks.core.store.store import Store

__all__ = ["ArtifactRef", "DamagedArtifact", "Store", "open_store"]
