"""What runs a model: torch for weights, onnxruntime for graphs. The script decides which; neither imports the other."""
