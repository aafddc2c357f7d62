"""Image files to arrays and back; the only package that imports Pillow.

Read `load` and `save` first. `formats` opens files, `limits` restricts what a file may make the decoder allocate,
`truncated` completes files that lack their end, `exif` applies orientations,
`metadata` reads the description of a file, `quantize` converts floats to integers, and `image_rows` processes large
images in chunks of rows. `contact_sheet` draws many images on one page. `resample` resizes arrays of NumPy and JAX.
"""
