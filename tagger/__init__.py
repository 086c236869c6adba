"""What the scripts are built of. Scripts stand above this package, import it, and never each other.

    cli.py           parsers, exit codes, one-line errors
    files.py         files that appear whole or not at all; the error for what a user can correct
    images.py        any image to a model's pixels
    device.py        what to compute on
    preparation.py   how a model's pixels are made, as data
    proxies.py       HTTP clients that keep to what the environment says of proxies and certificates
    formats/         what the scripts hand on, a module a kind of file; in families/ public taggers
    crawl/           Danbooru's posts into a dataset folder          simple_dan_crawl.py
    tfrecord/        a dataset folder into TFRecords                 create_tfrecord.py
    training/        TFRecords into checkpoints                      train_pytorch.py
    inference/       images and a checkpoint into tags               wdv3_pytorch.py

The six modules of this folder are the ground: they import none but `files` and `preparation`. `formats` imports
itself, these two and `proxies`. A stage (crawl, tfrecord, training, inference) imports the ground, `formats` and
itself, never another stage. Nothing here imports a script or models.py: what needs a model is given one.
tests/test_layout.py reads every file for that.
"""
