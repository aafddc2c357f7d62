"""Image files to arrays and back; the only package that imports Pillow.

Read `load` and `save` first. `formats` opens files, `limits` restricts what a file may make the decoder allocate,
`truncated` completes files that lack their end, `image_rows` reads large images in chunks of rows, `exif` turns them
upright, and `metadata` reads the description of a file. `contact_sheet` draws many images on one page. `resample`
resizes NumPy and JAX arrays.
"""
