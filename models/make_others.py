"""Write exports of other frameworks: ``pip install scikit-learn skl2onnx`` or ``pip install tensorflow-cpu tf2onnx``.

python -m models.make_others sklearn|keras|quantised
"""

from __future__ import annotations

import lzma
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx

from models import EXPORTS, export, strip


def sklearn() -> Iterator[tuple[str, onnx.ModelProto]]:
    """Pipelines trained on the digits that scikit-learn brings: scaler, network, and what turns scores into labels."""
    from skl2onnx import to_onnx
    from sklearn.datasets import load_digits
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, y = load_digits(return_X_y=True)
    x = x.astype(np.float32)
    network = make_pipeline(StandardScaler(), MLPClassifier((48, 32), max_iter=60, random_state=0)).fit(x, y)
    yield "sklearn-classifier-skl17", to_onnx(network, x[:1], target_opset=17)
    regressor = make_pipeline(
        StandardScaler(), MLPRegressor(hidden_layer_sizes=(48, 32), max_iter=60, random_state=0)
    ).fit(x, y)
    yield "sklearn-regressor-skl15", to_onnx(regressor, x[:1], target_opset={"": 15, "ai.onnx.ml": 3})


def keras() -> Iterator[tuple[str, onnx.ModelProto]]:
    """A convolutional net with separable convolutions in TensorFlow's layout, and a bidirectional recurrent one."""
    import tensorflow as tf
    import tf2onnx

    k = tf.keras.layers
    image = tf.keras.Sequential(
        [
            k.Input((32, 32, 3)),
            k.Conv2D(24, 3, padding="same", use_bias=False),
            k.BatchNormalization(),
            k.ReLU(),
            k.SeparableConv2D(32, 3, padding="same"),
            k.LeakyReLU(),
            k.MaxPooling2D(),
            k.Conv2D(48, 3, padding="same", activation="swish"),
            k.GlobalAveragePooling2D(),
            k.Dense(32, activation="relu"),
            k.Dense(10, activation="softmax"),
        ]
    )
    text = tf.keras.Sequential(
        [
            k.Input((12, 16)),
            k.Bidirectional(k.LSTM(24, return_sequences=True)),
            k.Conv1D(32, 3, padding="same", activation="relu"),
            k.LayerNormalization(),
            k.Dense(24, activation="elu"),
            k.Dense(5),
        ]
    )
    for name, model, opset in (("keras-cnn", image, 13), ("keras-tagger", text, 15)):
        shape = (None, *model.input_shape[1:])
        function = tf.function(lambda x, m=model: m(x, training=False))
        signature = [tf.TensorSpec(shape, tf.float32, name="x")]
        yield f"{name}-tf{opset}", tf2onnx.convert.from_function(function, signature, opset=opset)[0]


def quantised() -> Iterator[tuple[str, onnx.ModelProto]]:
    """A detector as ONNX Runtime quantises it statically, activations too: signed by channel, unsigned by tensor."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Images(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            rng = np.random.default_rng(0)
            self.batches = iter([{"x": rng.standard_normal((2, 3, 64, 64)).astype(np.float32)} for _ in range(4)])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.batches, None)

    for name, kind, by_channel in (("int8", QuantType.QInt8, True), ("uint8", QuantType.QUInt8, False)):
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder) / "in.onnx", Path(folder) / "out.onnx"
            onnx.save(export("yolo-dynamo18"), source)
            settings = {"per_channel": by_channel, "activation_type": kind, "weight_type": QuantType.QInt8}
            quantize_static(source, target, Images(), quant_format=QuantFormat.QDQ, **settings)
            yield f"yolo-{name}-ort18", onnx.load(target)


def main(names: list[str]) -> None:
    """Write the exports of the named frameworks."""
    for name in names:
        for label, proto in {"sklearn": sklearn, "keras": keras, "quantised": quantised}[name]():
            strip(proto, 128)
            packed = lzma.compress(proto.SerializeToString(deterministic=True), preset=9)
            (EXPORTS / f"{label}.onnx.xz").write_bytes(packed)
            print(f"{label}: {len(proto.graph.node)} nodes, {len(packed) >> 10} KiB")


if __name__ == "__main__":
    main(sys.argv[1:])
