"""PixNet as an app of MONAI Label: slides and requests come over HTTP, polygons, contours and maps go back.

`main.py` is what MONAI Label looks for; only `app` and `tasks` need its package.
"""
