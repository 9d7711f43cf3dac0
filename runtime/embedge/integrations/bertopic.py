"""BERTopic: EmbedgeBackend, for BERTopic(embedding_model=...).

Needs `embedge[bertopic]`; importing this module imports bertopic.
"""

from typing import Any

from embedge.integrations.framework import require
from embedge.integrations.topics import TopicBackend

_Base: Any = require("bertopic.backend", "bertopic").BaseEmbedder


class EmbedgeBackend(TopicBackend, _Base):  # type: ignore[misc]
    """BERTopic's BaseEmbedder with a model file; takes the arguments of TopicBackend."""
