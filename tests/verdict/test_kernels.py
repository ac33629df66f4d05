"""What is read out of TensorRT's accounts of an engine."""

from graphprune.verdict.kernels import Fusion, Kernel, by_type, from_inspector, from_log, fusion, memory, sparsity

LOG = """\
[X] Layers:
    Name: __myl_Move_myl0_0, LayerType: kgen, Inputs: [ { Name: x, Dimensions: [5,3] }], Constants: [], Outputs: [ ], \
TacticName: __myl_Move_0x25, StreamId: 0, Metadata: \n\
    Name: a+b_myl0_1, LayerType: gemm, Inputs: [ { Name: y }], Outputs: [ ], TacticName: stub, StreamId: 0, \
Metadata: [ONNX Layer: /a/MatMul]\x1f[ONNX Layer: /b/MatMul]
I/O Tensors:
     Name: x, IOMode: Input, DataType: Float, Dimensions: [5,3], Location: Device
[V] Total Activation Memory: 48332800 bytes
[V] Total Weights Memory: 93836416 bytes
[I] (Sparsity) Layers eligible for sparse math: Conv_0 + Relu_1, MatMul_2
[I] (Sparsity) TRT inference plan picked sparse implementation for layers:
"""


def kernel(name: str, *nodes: str) -> Kernel:
    return Kernel(name, "kgen", frozenset(nodes))


def test_layers_of_a_verbose_log() -> None:
    found = from_log(LOG)
    assert [k.type for k in found] == ["kgen", "gemm"] and by_type(found) == {"kgen": 1, "gemm": 1}
    assert found[0].nodes == frozenset() and found[1].nodes == {"/a/MatMul", "/b/MatMul"}
    assert memory(LOG) == {"weights_bytes": 93836416, "activation_bytes": 48332800}
    assert sparsity(LOG) == {"eligible": ["Conv_0 + Relu_1", "MatMul_2"], "picked": []}
    assert from_log("") == [] and memory("") == {} and sparsity("") == {}


def test_layers_of_an_inspected_engine() -> None:
    data = {
        "Layers": [
            {
                "Name": "conv",
                "LayerType": "CaskConvolution",
                "HasSparseWeights": 1,
                "TacticName": "sm80_xmma_fprop_sparse_conv_f16",
                "Metadata": "[ONNX Layer: c]\x1f[ONNX Layer: relu]",
            },
            {"Name": "gemm", "LayerType": "gemm", "HasSparseWeights": 1, "TacticName": "sm80_xmma_gemm_f16"},
            {"Name": "dense", "LayerType": "gemm", "HasSparseWeights": 0, "TacticName": "sm80_sparse"},
            "by name alone",
        ]
    }
    found = from_inspector(data)
    assert found[0].nodes == {"c", "relu"} and [k.sparse for k in found] == [True, False, False, None]


def test_fusion_counts_what_both_models_have() -> None:
    original = [kernel("one", "a", "b", "gone"), kernel("two", "c", "d", "e"), kernel("three", "f")]
    same = [kernel("x", "a", "b", "c", "d", "e"), kernel("y", "f", "new")]
    assert fusion(original, same) == Fusion(2, ())
    apart = [kernel("x", "a"), kernel("y", "b", "c", "d"), kernel("z", "e"), kernel("w", "f")]
    assert fusion(original, apart) == Fusion(2, (("a", "b"), ("c", "d", "e")))


def test_a_node_in_several_kernels_is_with_others_in_any_of_them() -> None:
    original = [kernel("one", "a", "b")]
    assert not fusion(original, [kernel("x", "a"), kernel("y", "a", "b")]).parted
