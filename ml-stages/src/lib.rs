//! Training, ONNX export, inference and evaluation as stages of a Mainstem graph.
