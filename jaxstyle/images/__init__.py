"""Image files to arrays and back; the only package that imports Pillow.

Read `load` and `save` first. `limits` restricts what a file may make the decoder allocate, `exif` applies orientations,
`metadata` reads the description of a picture, `quantize` converts floats to integers, and `image_rows` processes large
pictures in bands of rows. `contact_sheet` draws many pictures on one page. `resample` resizes arrays, of NumPy and of
JAX.
"""
