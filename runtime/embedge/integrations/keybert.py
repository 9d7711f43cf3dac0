"""KeyBERT: EmbedgeBackend, for KeyBERT(model=...).

Needs `embedge[keybert]`; importing this module imports keybert.
"""

from typing import Any

from embedge.integrations.framework import require
from embedge.integrations.topics import TopicBackend

_Base: Any = require("keybert.backend", "keybert").BaseEmbedder


class EmbedgeBackend(TopicBackend, _Base):  # type: ignore[misc]
    """KeyBERT's BaseEmbedder with a model file; takes the arguments of TopicBackend."""
