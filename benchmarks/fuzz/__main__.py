"""`python -m benchmarks.fuzz --seeds A B`: see the package's docstring."""

import sys

if __name__ == "__main__":  # every case's process imports this module
    from .command import main

    sys.exit(main())
