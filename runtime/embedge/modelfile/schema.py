"""The field numbers of ONNX's messages that a model file may have, each named once.

They are those of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""


class ModelProto:
    """The whole file."""

    IR_VERSION, PRODUCER_NAME, GRAPH, OPSET_IMPORT = 1, 2, 7, 8
    METADATA_PROPS, TRAINING_INFO, FUNCTIONS = 14, 20, 25


class StringStringEntryProto:
    """A metadata entry."""

    KEY, VALUE = 1, 2


class OperatorSetIdProto:
    """An imported operator set."""

    DOMAIN, VERSION = 1, 2


class GraphProto:
    """Nodes, weights, inputs and outputs."""

    NODE, INITIALIZER, INPUT, OUTPUT, VALUE_INFO, SPARSE_INITIALIZER = 1, 5, 11, 12, 13, 15


class NodeProto:
    """An operator applied to named values."""

    INPUT, OUTPUT, OP_TYPE, ATTRIBUTE, DOMAIN = 1, 2, 4, 5, 7


class AttributeProto:
    """An attribute of a node; one that holds a tensor or a graph has it in one of these."""

    TENSORS = (5, 10)
    GRAPHS = (6, 11)
    SPARSE_TENSORS = (22, 23)


class TensorProto:
    """A constant."""

    DIMS, DATA_TYPE, NAME, RAW_DATA, EXTERNAL_DATA, DATA_LOCATION = 1, 2, 8, 9, 13, 14
    EXTERNAL = 1  # a value of DATA_LOCATION
    FLOAT_DATA, DOUBLE_DATA = 4, 10
    VARINTS = (5, 7, 11)  # int32_data, int64_data, uint64_data


class SparseTensorProto:
    """A constant that stores only what is not zero; refused."""

    TENSORS = (1, 2)  # values, indices


class ValueInfoProto:
    """Name and type of an input or output."""

    NAME, TYPE = 1, 2


class TypeProto:
    """The type of a value, and within it a tensor's."""

    TENSOR_TYPE = 1
    ELEM_TYPE, SHAPE = 1, 2  # of TypeProto.Tensor
    DIM = 1  # of TensorShapeProto
    DIM_VALUE, DIM_PARAM = 1, 2  # of TensorShapeProto.Dimension


# Values of TensorProto.DataType.
FLOAT32, UINT8, INT8, INT64, FLOAT16 = 1, 2, 3, 7, 10

# Bits of an element by TensorProto.DataType: numbers and booleans, no strings.
BITS = {
    1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 16: 16,
    21: 4, 22: 4,
}  # fmt: skip
