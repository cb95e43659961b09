"""What exists only to be fast. Every part has a plain twin that a test compares it with, or a switch that turns it off.

| module | what it buys | plain twin or switch | benchmark |
| --- | --- | --- | --- |
| `lattice_pooling` | pools lattices without drawing a mask | `bundle.inference.pool` of the same units | `flat` |
| `unit_names` | writes millions of unit names without a string object each | Zarr's own indexing | `flat` |
| `memory` | keeps freed memory for the next tile | not calling it | `limit` |
| `threads` | leaves cores to other processes, and to the network | `OMP_NUM_THREADS` | `busy`, `limit` |
"""
