"""A phantom: slides that look like H&E, genes with a known dense truth, and every difficulty that we could name.

`make_phantom(out)` writes `dataset.json` (each slide a patient of its own; the last one tests, the one before it
validates), `slides/P1.tif`, ..., `units/P1_spot100.h5ad`, ..., and `truth/`, a second data set of the same form: the
noise-free expected counts (`kind="rate"`) of 2 µm squares on the test slide's tissue, at that slide's mean depth.

The choices below are frozen; a result on the phantom is a result on them.

1. Cells come first. Nuclei stand on a jittered 5 µm lattice, thinned so that none collide (Matérn's second rule).
   Five kinds: tumour (large, pale, with a nucleolus), epithelium (glands around a lumen), lymphocytes (small, dark,
   round), fibroblasts (along the collagen), adipocytes. What a cell expresses and how it looks come from one state.
2. Expression: rates per cell, spread as a Gaussian of 3 µm about its centre. `mixture="programs"`: sums of 18
   non-negative programs; `mixture="free"`: a nonlinear function of the state for each gene.
3. Gradients within a kind: nuclear size, nuclear elongation and hypoxia (half way 60 µm inside the border) in tumour;
   crimp of the fibres and nearness of tumour (40 µm) in fibroblasts.
4. Colour is a poor guide. The area that nuclei cover, and RNA per area, do not depend on nuclear size or elongation;
   92 % of the `programs` genes pair a tumour state with a stroma state; stain drifts by 20 % within a slide
   and by 13 % between slides. `bundle.datasets.phantom.difficulty` measures it: a ridge on colour reaches at most half
   of the oracle's PCC@M.
5. Invisible: four smooth fields (35, 80, 170 and 350 µm) and a state that 15 % of the cells have. 30 to 50 % of the
   variance of log1p CP10k at 100 µm, within slides.
6. Measurement: transcripts diffuse (another 4 µm), units lie 15 µm off the picture in one direction per slide, bent by
   up to 4 µm (the truth has neither); depth per unit log-normal (0.25), counts negative binomial (dispersion 0.1).
7. Slides: factors per gene and slide log-normal (0.25), depth per slide log-normal (0.25), 1 UMI per µm² of average
   tissue before them (a 100 µm spot holds about 8000, an 8 µm bin about 60).
8. Abundances log-normal (1.0). Every tenth gene is ambient: the same density everywhere, glass included, 3 % of
   all UMI together.
9. Everything is a function of place and seed (hashed lattices, sums of plane waves), so a tile rendered alone equals
   the same tile of the whole, and memory does not grow with the slide but for one band of rows.
"""

from __future__ import annotations

from .dataset import Truth, make_phantom
from .expression import Mixture
from .measure import Layout, parse_layouts

__all__ = ["Layout", "Mixture", "Truth", "make_phantom", "parse_layouts"]
