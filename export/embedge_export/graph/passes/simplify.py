"""fp32 rewrites of a traced transformer, each of which keeps the function that the graph computes.

A trace holds every detail: shapes are computed node by node, GELU is five operators, attention is a
dozen. The passes bring back the few operators that onnxruntime runs fast. A pass that does not
recognize a graph leaves it as it is, so that any architecture may come through here.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx

from embedge_export.graph.ir import Graph
from embedge_export.graph.passes.attention import fuse_attention
from embedge_export.graph.passes.constants import fold_constants, lift_constants
from embedge_export.graph.passes.gelu import fuse_gelu
from embedge_export.graph.passes.identities import drop_identities
from embedge_export.graph.passes.reshapes import fix_reshapes
from embedge_export.graph.passes.scales import fold_scales, share_score_scales
from embedge_export.graph.passes.token_types import fold_token_types

PASSES: tuple[Callable[[Graph], None], ...] = (
    lift_constants,
    fold_constants,
    drop_identities,
    fix_reshapes,
    fuse_gelu,
    fold_scales,
    share_score_scales,
    fuse_attention,
    fold_token_types,
)
# These bring in operators of com.microsoft.
CPU_ONLY = (fuse_attention,)


def simplify(model: onnx.ModelProto, *, portable: bool = False) -> onnx.ModelProto:
    """Return the same function as `model`, in fewer and faster operators.

    A portable graph has onnx's own operators only, which more providers run.
    """
    graph = Graph(model)
    for rewrite in PASSES:
        if portable and rewrite in CPU_ONLY:
            continue
        rewrite(graph)
        graph.prune()
    return graph.finish()
