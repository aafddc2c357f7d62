"""Loading and saving of image files; the only package that imports Pillow.

Read `load` and `save` first. `formats` opens files, `limits` restricts the memory that a decoder allocates for a file,
`truncated` completes truncated files, `image_rows` reads large images in chunks of rows, `exif` turns them
upright, and `metadata` reads the description of a file. `contact_sheet` draws many images on one page. `resample`
resizes NumPy and JAX arrays.
"""
