"""Tiny ONNX files in the layout of insightface's antelopev2: SCRFD with five points, and ArcFace.

The random ones have the real inputs, outputs and operations. The drawn one finds "faces" that `draw` put into a frame,
and gives the box and the points that were drawn, so that they are known.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

DETECTOR, EMBEDDER = "scrfd_10g_bnkps.onnx", "glintr100.onnx"
# A mark is one cell of the detector's finest level. Its first row is pure green, its second says how sure it is, the
# third and fourth hold the 14 numbers of box and points, in units of a cell: red the coarse part, blue the fine one.
CELL = 8
SURENESS = 4.0
COARSE, FINE = 64.0, 0.5
EMPTY = ((2, -20.0), (8, 0.0), (20, 0.0))  # channels of scores, boxes and points, and their values


class Graph:
    """An ONNX graph, node by node; names are those that torch's exporter used to give."""

    def __init__(self, seed: int) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self.random = np.random.default_rng(seed)

    def add(self, operation: str, *inputs: str | np.ndarray, **attributes: Any) -> str:
        """Append a node; arrays become weights. Returns the name of its output."""
        names = [value if isinstance(value, str) else self.weight(value) for value in inputs]
        number = len(self.nodes)
        self.nodes.append(helper.make_node(operation, names, [f"v{number}"], f"{operation}_{number}", **attributes))
        return f"v{number}"

    def weight(self, value: np.ndarray) -> str:
        kind = np.int64 if value.dtype.kind == "i" else np.float32
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(value, kind), f"w{len(self.weights)}"))
        return f"w{len(self.weights) - 1}"

    def conv(self, value: str, inner: int, outer: int, *, kernel: int = 3, stride: int = 1, gain: float = 1.4) -> str:
        weight = self.random.normal(0, gain / (kernel * inner**0.5), (outer, inner, kernel, kernel))
        bias = self.random.normal(0, 0.1, outer)
        pads = [kernel // 2] * 4
        return self.add("Conv", value, weight, bias, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=pads)

    def norm(self, value: str, width: int) -> str:
        terms = [self.random.uniform(0.8, 1.2, width), *self.random.normal(0, 0.1, (2, width))]
        return self.add("BatchNormalization", value, *terms, self.random.uniform(0.8, 1.2, width), epsilon=1e-5)

    def prelu(self, value: str, width: int) -> str:
        return self.add("PRelu", value, self.random.uniform(0.1, 0.3, (width, 1, 1)))

    def save(self, path: Path, source: list[Any], outputs: list[tuple[str, list[Any]]]) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        inputs = [helper.make_tensor_value_info("input.1", TensorProto.FLOAT, source)]
        given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs]
        graph = helper.make_graph(self.nodes, "tiny", inputs, given, self.weights)
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6), path)
        return path


def _save_detector(
    graph: Graph, path: Path, heads: list[list[str]], *, batched: bool, size: int | None, kinds: int = 3
) -> Path:
    """The nine outputs of SCRFD from maps (N, anchors * width, h, w): all scores, all boxes, all points."""
    outputs: list[tuple[str, list[Any]]] = []
    for kind, width in list(enumerate((1, 4, 10)))[:kinds]:
        for maps in heads:
            # Real files without a batch axis put the cells first, those with one the batch.
            turned = graph.add("Transpose", maps[kind], perm=[0, 2, 3, 1] if batched else [2, 3, 0, 1])
            flat = graph.add("Reshape", turned, np.array([0, -1, width] if batched else [-1, width]))
            name = graph.add("Sigmoid", flat) if kind == 0 else flat
            outputs.append((name, ["batch", None, width] if batched else [None, width]))
    side = [size, size] if size else ["height", "width"]
    return graph.save(path, ["batch" if batched else 1, 3, *side], outputs)


def random_detector(
    path: Path, *, seed: int = 0, batched: bool = False, size: int | None = None, bias: float = -2.0, kinds: int = 3
) -> Path:
    """A small backbone with random weights; a higher bias finds more faces."""
    graph = Graph(seed)
    value, width = "input.1", 3
    heads = []
    for level in range(5):
        value, width = graph.add("Relu", graph.conv(value, width, 8, stride=2)), 8
        if level >= 2:
            scores = graph.conv(value, width, 2, kernel=1, gain=4.0)
            scores = graph.add("Add", scores, np.full((1, 2, 1, 1), bias))
            boxes = graph.add("Abs", graph.conv(value, width, 8, kernel=1, gain=4.0))
            heads.append([scores, boxes, graph.conv(value, width, 20, kernel=1, gain=4.0)])
    return _save_detector(graph, path, heads, batched=batched, size=size, kinds=kinds)


def marked_detector(path: Path, *, batched: bool = False) -> Path:
    """Finds what `draw` has drawn: it reads score, box and points from the pixels of a mark.

    Coarser levels and the second anchor find nothing.
    """
    graph = Graph(0)
    whole = {"kernel_shape": [CELL] * 2, "strides": [CELL] * 2}

    def reading(rows: np.ndarray) -> str:  # by the first of two anchors
        return graph.add("Conv", "input.1", np.concatenate([rows, 0 * rows]), np.zeros(2 * len(rows)), **whole)

    score = np.zeros((2, 3, CELL, CELL))
    score[0, :, 0] = np.array([[-20.0], [20.0], [-20.0]])
    score[0, 1, 1, 0] = SURENESS
    full = 20 * 3 * CELL * 127.5 / 128  # what a row of pure green gives, and nothing else
    values = np.zeros((14, 3, CELL, CELL))
    for number in range(14):
        values[number, [0, 2], 2 + number // CELL, number % CELL] = COARSE, FINE
    marks = graph.add("Conv", "input.1", score, np.array([-full, -20.0]), **whole)
    heads = [[marks, reading(values[:4]), reading(values[4:])]]
    for stride in (16, 32):
        shape = {"kernel_shape": [stride] * 2, "strides": [stride] * 2}
        blanks = [(np.zeros((width, 3, stride, stride)), np.full(width, fill)) for width, fill in EMPTY]
        heads.append([graph.add("Conv", "input.1", *blank, **shape) for blank in blanks])
    return _save_detector(graph, path, heads, batched=batched, size=None)


def draw(frame: np.ndarray, cell: tuple[int, int], box: Any, points: Any, score: float = 0.9) -> None:
    """Draw a mark from which `marked_detector` reads a face, into a frame (H, W, 3) of the detector's size.

    Args:
        frame: Changed in place.
        cell: Column and row of the mark, in cells of 8 pixels.
        box: Left, top, right, bottom, in pixels; kept to 1/64 of a pixel, as the points.
        points: (5, 2).
        score: 0.03 to 0.97, about.
    """
    at = np.array(cell) * CELL
    values = np.concatenate([at - box[:2], box[2:] - at, (np.asarray(points) - at).ravel()]) / CELL
    coarse = np.round(values * 128 / COARSE + 127.5)
    fine = np.round((values - (coarse - 127.5) * COARSE / 128) * 128 / FINE + 127.5)
    mark = np.zeros((CELL, CELL, 3))
    mark[0, :, 1] = 255
    mark[1, 0, 1] = np.round(np.log(score / (1 - score)) / SURENESS * 128 + 127.5)
    for number in range(14):
        mark[2 + number // CELL, number % CELL, [0, 2]] = coarse[number], fine[number]
    assert mark.min() >= 0
    assert mark.max() <= 255
    frame[at[1] : at[1] + CELL, at[0] : at[0] + CELL] = mark.astype(frame.dtype)


def random_embedder(path: Path, *, seed: int = 1, normalises: bool = False, smooth: bool = False) -> Path:
    """IResNet's operations with few channels: (N, 3, 112, 112) to (N, 512).

    Args:
        path: Where it goes.
        seed: Of the weights.
        normalises: Whether it begins by subtracting and multiplying, as exports from MXNet do.
        smooth: Softplus in place of PReLU, for finite differences.
    """
    graph = Graph(seed)
    value = "input.1"
    if normalises:
        value = graph.add("Sub", value, np.array(127.5))
        value = graph.add("Mul", value, np.array(1 / 128))

    def bend(value: str, width: int) -> str:
        return graph.add("Softplus", value) if smooth else graph.prelu(value, width)

    value = bend(graph.norm(graph.conv(value, 3, 4), 4), 4)
    inner = 4
    for outer in (4, 8, 8, 16):
        branch = graph.conv(graph.norm(value, inner), inner, outer)
        branch = graph.norm(graph.conv(bend(graph.norm(branch, outer), outer), outer, outer, stride=2), outer)
        value = graph.add("Add", branch, graph.norm(graph.conv(value, inner, outer, kernel=1, stride=2), outer))
        inner = outer
    flat = graph.add("Flatten", graph.norm(value, inner), axis=1)
    projection = graph.random.normal(0, 1 / 28, (512, inner * 49))
    features = graph.norm(graph.add("Gemm", flat, projection, graph.random.normal(0, 0.1, 512), transB=1), 512)
    return graph.save(path, [None, 3, 112, 112], [(features, [None, 512])])


def antelope(folder: Path, *, marked: bool = True, batched: bool = False, smooth: bool = False) -> Path:
    """A directory with both files."""
    if marked:
        marked_detector(folder / DETECTOR, batched=batched)
    else:
        random_detector(folder / DETECTOR, batched=batched)
    random_embedder(folder / EMBEDDER, smooth=smooth)
    return folder


def config(folder: Path) -> dict[str, Any]:
    """Write tiny models and return the parameters of a `FaceSimilarity` that finds a face in any image."""
    random_detector(folder / DETECTOR, bias=6.0, size=64)
    random_embedder(folder / EMBEDDER)
    return {"model_name_or_path": str(folder), "device": "cpu"}
