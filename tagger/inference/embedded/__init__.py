"""The prompt that an image generator left in a picture, and the artists that it names.

    containers.py   where texts hide in a file: chunks, EXIF, XMP, comments
    exif.py         EXIF's directories, and how its comments are encoded
    hidden.py       texts in the lowest bits of the pixels
    fields.py       texts of all containers under the names that generators use
    generators.py   the registry: who wrote it, and in which dialect
    novelai.py  infotext.py  comfyui.py  json_prompts.py      a reader a generator or family
    grammar.py      a dialect's brackets and numbers into weighted pieces
    artists.py      pieces into Danbooru's artist tags
    reading.py      all of it in one call

    python wdv3_pytorch.py --image_file picture.png --embedded_prompt only

Everything here is a stranger's: sizes are checked before they are believed, and nothing that a file holds may stop a
run, take long, or fill the memory. Only hidden.py imports more than the standard library.
"""
