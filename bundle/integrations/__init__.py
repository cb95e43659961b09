"""Other programs: MONAI Label, dask, ONNX, bundle archives."""
