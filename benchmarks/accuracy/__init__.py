"""Accuracy on tissue that a model has not seen: recipes and baselines under one protocol.

- **Folds.** One patient is left out, in turn, where a data set holds several; else one section, and every result says
  `same_patient`. The group after the tested one is the fold's inner validation.
- **Stages.** *Screening* trains on the rest and scores the inner validation; the test section is not in the data set
  that a training is given. *Final* trains on the rest and the inner validation, as the baselines do, and scores the
  test once.
- **Rule.** The last weights of a schedule that fits the time budget are scored, in both stages: no epoch is picked by
  a score. What screening decides (the recipe, the budget) is decided for all folds together, so a section that is one
  fold's inner validation is another's test; by default screening runs the first and third fold, whose own test
  sections are, of four groups or more, then nobody's inner validation. The final table shows every fold by itself, and
  beside the mean over all folds the mean over those whose test sections no screening scored.
- **Budget.** CPU time of the training thread (`benchmarks.accuracy.budget`), equal for all recipes; scoring comes on
  top, and so does fitting a ridge on frozen filters. With `--by-steps` it is the steps that the time held when it was
  measured (`--stage timing`), so that a GPU can train.
- **Genes.** Chosen on the training slides of each fold and stage: `mean250` for the headline, `hvg50` beside it.
- **Baselines** see the same slides, genes and units; their choices are made by leaving out one training section in
  turn.
- **Noise.** Seeds' standard deviation within folds; intervals are paired over resampled blocks of tissue.
- **Cells.** A finished cell is a JSON in `benchmarks/results/accuracy`, named by the hash of what was asked, and is not
  run again. Of a method, cells of its newest settings alone are averaged; how many are left out is printed.
  `configs/train.json` is not part of that hash: each cell notes its own, and the report tells where they
  differ.
"""
