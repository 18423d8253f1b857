"""``python -m saccade`` is the same as the command ``saccade``."""

from saccade.cli import main

raise SystemExit(main())
