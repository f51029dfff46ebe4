"""``python -m automix`` is the same as ``automix``."""

import sys

from automix.cli.main import main

sys.exit(main())
