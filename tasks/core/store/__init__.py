"""The store: versioned artifacts, the runs that made them, and which run is the current one.

A version is the digest of its key. It is there whole or not at all, and never changes its bytes.
"""

from tasks.core.store.artifact import ArtifactRef
from tasks.core.store.current import open_store
from tasks.core.store.store import DamagedArtifact, Store

__all__ = ["ArtifactRef", "DamagedArtifact", "Store", "open_store"]
