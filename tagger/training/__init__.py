"""TFRecords into checkpoints: what train_pytorch.py is built of."""
