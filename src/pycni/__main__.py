"""`python -m pycni`."""

from __future__ import annotations

import sys

from pycni.cli import main

sys.exit(main())
