"""Images and a checkpoint into tags: what wdv3_pytorch.py is built of."""
