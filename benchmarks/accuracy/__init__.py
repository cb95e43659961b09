"""Accuracy on tissue that a model has not seen: recipes and baselines under one protocol.

- **Folds.** Each fold leaves out one patient, or one section where all sections are of one patient (`same_patient`).
  The group after the tested one is the fold's inner validation.
- **Stages.** *Screening* trains on the rest and scores the inner validation; its training data set does not contain the
  test section. *Final* trains on the rest and the inner validation, as the baselines do, and scores the test once.
- **Rule.** Both stages score the last weights of a schedule that fits the time budget; no score picks an epoch. What
  screening decides (the recipe, the budget) holds for all folds, so one fold's inner validation is another's test
  section. By default screening runs the first and third fold.
- **Budget.** CPU time of the training thread (`benchmarks.accuracy.budget`), equal for all recipes. Scoring and fitting
  the ridge branch come on top. With `--by-steps` the budget is the number of steps that fitted into the time when
  `--stage timing` measured it, so that a GPU can train.
- **Genes.** Chosen on the training slides of each fold and stage: `mean250` for the headline, `hvg50` as well.
- **Baselines** see the same slides, genes and units. They choose by leaving out one training section in turn.
- **Noise.** Seeds' standard deviation within folds; intervals are paired over resampled blocks of tissue.
- **Results.** A finished run is a line of `benchmarks/results/accuracy.csv` (see `benchmarks.store`). Its key is the
  hash of its settings, and it is not run again. Tables average only a method's runs with its newest settings and print
  how many they leave out. `configs/train.json` is not part of the key: each run notes its own, and the report says
  where they differ.

`python -m benchmarks.tables` writes the pages of `docs/benchmarks/` from the results.
"""
