"""Seeded corruptions of everything that a command reads, with a verdict for each.

`python -m benchmarks.fuzz --seeds 0 300`: one seed is one case, that is a drawn kind of input, what is done to it, and
the command that reads it. The verdicts:

- `sentence`: the input is refused with exit status 2 and a sentence; no output appears.
- `right`: exit status 0; the output is whole, plausible and, where the change is harmless, that of the unchanged
  input.
- `traceback`, `crash` (a signal), `hang` (out of time): what no input may lead to.
- `wrong`: an output that is wrong or partial, what is harmless refused, what is impossible accepted, a file of the
  user's changed or deleted, something left over.
- `executed`: data ran as code.

`--only KIND` draws cases of one kind; `--list` names the kinds. A bad case is printed with its seed;
`--seeds 17 18 -v` repeats it, keeps its folder and prints the command and what it said.

| file | what is in it |
| --- | --- |
| `case.py` | a case, the folder in which it is built, the registry of kinds |
| `base.py` | slides, a run and results of unchanged inputs, generated once |
| `runner.py` | runs a command in a process forked from one that has imported the libraries; bounds time and memory |
| `command.py`, `trial.py` | tries seeds; builds, runs and judges one |
| `verdict.py` | what became of a case |
| `checks.py` | whether an output is plausible, or that of the unchanged input |
| `damage.py` | corruptions of any file: cut short, flipped bits, overwritten |
| `kinds/` | a file for each kind of input |
"""
