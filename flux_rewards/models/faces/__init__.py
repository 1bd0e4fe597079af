"""Faces: where they are in a frame, how they are cut out, and whose they are. Files in insightface's ONNX layout."""
