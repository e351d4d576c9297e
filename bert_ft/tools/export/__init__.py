"""A run as files that other programs run: ONNX graphs that were held against torch, row by row."""
