"""Remove nodes that return their input."""

from __future__ import annotations

from embedge_export.graph.ir import Graph, attribute


def drop_identities(graph: Graph) -> None:
    """Let consumers of an Identity (or of a Cast to the type that a Cast made) read its input."""
    for node in graph.nodes:
        before = graph.producer(node.input[0], "Cast") if node.op_type == "Cast" else None
        again = before is not None and attribute(before, "to") == attribute(node, "to")
        if node.op_type == "Identity" or again:
            graph.bypass(node)
