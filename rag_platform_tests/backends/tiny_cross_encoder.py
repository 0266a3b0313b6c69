"""A cross-encoder small enough to build in a test: a real ONNX graph over real token ids whose logit is the
number of the question's tokens that the passage holds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from rag_platform.backends.embedders import minilm_build


def build(folder: Path, *, classes: int = 1, integers: int = TensorProto.INT64, extra_input: str | None = None) -> Path:
    """Write model.onnx, tokenizer.json and config.json into ``folder`` and return it.

    Args:
        classes: width of ``logits``; two classes are (-logit, logit), others repeat it.
        integers: element type of the inputs.
        extra_input: name of one more input, which the graph ignores but demands.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(minilm_build.TOKENIZER, folder / "tokenizer.json")
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "max_position_embeddings": 512}))
    names = ["input_ids", "attention_mask", "token_type_ids", *([extra_input] if extra_input else [])]
    node = helper.make_node
    signs = {1: [1.0], 2: [-1.0, 1.0]}.get(classes, [1.0] * classes)
    constants = {
        "one": np.array([1], np.int64),
        "two": np.array([2], np.int64),
        "axes": np.array([1], np.int64),
        "unit": np.array(1.0, np.float32),
        "signs": np.array([signs], np.float32),
    }
    nodes = [
        # same[0, i, j]: tokens i and j are equal, i in the question and j in the passage
        node("Unsqueeze", ["input_ids", "two"], ["down"]),
        node("Unsqueeze", ["input_ids", "one"], ["across"]),
        node("Equal", ["down", "across"], ["equal"]),
        node("Cast", ["equal"], ["equal_f"], to=TensorProto.FLOAT),
        node("Cast", ["token_type_ids"], ["second"], to=TensorProto.FLOAT),
        node("Sub", ["unit", "second"], ["first"]),
        node("Unsqueeze", ["first", "two"], ["first_down"]),
        node("Unsqueeze", ["second", "one"], ["second_across"]),
        node("Mul", ["first_down", "second_across"], ["pairs"]),
        node("Mul", ["equal_f", "pairs"], ["same"]),
        node("ReduceMax", ["same"], ["held"], axes=[2], keepdims=0),
        node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        node("Mul", ["held", "mask"], ["counted"]),
        node("ReduceSum", ["counted", "axes"], ["sum"], keepdims=1),
        node("Mul", ["sum", "signs"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny_cross_encoder",
        [helper.make_tensor_value_info(n, integers, ["batch", "tokens"]) for n in names],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", classes])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(folder / "model.onnx"))
    return folder
