"""A dataset folder into TFRecords: what create_tfrecord.py is built of."""
