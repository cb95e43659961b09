"""`python -m bundle.cli`: the `pixnet` command without an installation."""

import sys

from .main import main

sys.exit(main())
