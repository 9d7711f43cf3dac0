"""The operators that the graph of a model file may use: what encoders of text are made of.

Each computes tensors from tensors and nothing else. Operators are left out that could open a file,
run forever, draw random numbers, work on strings or sequences, or call code of other domains.
"""

from embedge.errors import ModelError

_ONNX = """
    Abs Add And ArgMax ArgMin Attention AveragePool BatchNormalization Cast CastLike Ceil Celu
    Clip Concat Constant ConstantOfShape Conv Cos CumSum DequantizeLinear Div Dropout
    DynamicQuantizeLinear Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor Gather
    GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual
    GroupNormalization HardSigmoid HardSwish Identity If InstanceNormalization IsInf IsNaN
    LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax LpNormalization MatMul
    MatMulInteger Max MaxPool Mean Min Mish Mod Mul Neg NonZero Not OneHot Or PRelu Pad Pow
    QLinearMatMul QuantizeLinear RMSNormalization Range Reciprocal ReduceL1 ReduceL2
    ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
    ReduceSumSquare Relu Reshape RotaryEmbedding Round ScatterElements ScatterND Selu Shape
    Sigmoid Sign Sin Size Slice Softmax Softplus Softsign Split Sqrt Squeeze Sub Sum Swish Tan
    Tanh ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Where Xor
"""
_MICROSOFT = """
    Attention BiasGelu DequantizeLinear DynamicQuantizeMatMul EmbedLayerNormalization FastGelu
    FusedMatMul Gelu GroupQueryAttention MatMulIntegerToFloat MatMulNBits MultiHeadAttention
    QAttention QEmbedLayerNormalization QGemm QLinearAdd QLinearMul QuantizeLinear QuickGelu
    RotaryEmbedding SimplifiedLayerNormalization SkipLayerNormalization
    SkipSimplifiedLayerNormalization
"""
_ALLOWED = {"": frozenset(_ONNX.split()), "com.microsoft": frozenset(_MICROSOFT.split())}


def canonical_domain(domain: str) -> str:
    """The domain by its shorter name: onnx's own is "" and "ai.onnx"."""
    return "" if domain == "ai.onnx" else domain


def check_domain(domain: str) -> None:
    """Raise ModelError unless ``domain`` is one of the two."""
    if canonical_domain(domain) not in _ALLOWED:
        raise ModelError(
            f"expected operators of onnx's own domain and com.microsoft, got the domain "
            f"{domain!r}; export the model again with embedge export"
        )


def check_operator(domain: str, name: str) -> None:
    """Raise ModelError unless a model file may use the operator."""
    check_domain(domain)
    if name not in _ALLOWED[canonical_domain(domain)]:
        raise ModelError(
            f"the graph uses the operator {name}, which a model file may not use; export the model "
            "again with embedge export"
        )
