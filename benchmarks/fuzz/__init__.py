"""Seeded corruptions of everything that a command reads, with a verdict for each.

`python -m benchmarks.fuzz --seeds 0 300`: one seed is one case: a random kind of input, a change to it, and the command
that reads it. The verdicts:

- `sentence`: the command rejects the input with exit status 2 and a sentence and writes no output.
- `right`: exit status 0; the output is whole and plausible. After a harmless change it equals that of the unchanged
  input.
- `traceback`, `crash` (a signal), `hang` (out of time): no input may lead to these.
- `wrong`: the output is wrong or partial, a harmless input was rejected or an impossible one accepted, a file of the
  user was changed or deleted, or something was left over.
- `executed`: data ran as code.

`--only KIND` draws cases of one kind; `--list` prints the kinds. A bad case is printed with its seed;
`--seeds 17 18 -v` repeats it, keeps its folder and prints the command and its output.

| file | what is in it |
| --- | --- |
| `case.py` | a case, its folder, the registry of kinds |
| `base.py` | slides, a run and results of unchanged inputs, generated once |
| `runner.py` | runs a command in a process forked from one that has imported the libraries; bounds time and memory |
| `command.py`, `trial.py` | tries seeds; builds, runs and judges one |
| `verdict.py` | the verdict on a case |
| `checks.py` | whether an output is plausible, or that of the unchanged input |
| `damage.py` | corruptions of any file: cut short, flipped bits, overwritten |
| `kinds/` | a file for each kind of input |
"""
