"""`python -m mrt_core` is the same as `mrt`."""

import sys

from .cli import main

sys.exit(main())
