"""Names and bytes of files: folders listed, data frames checked, local paths and URLs read.

Nothing here knows an image format.
"""
