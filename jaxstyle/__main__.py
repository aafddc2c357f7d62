"""`python -m jaxstyle`, the same as `jaxstyle`."""

import sys

from jaxstyle.cli import main

if __name__ == "__main__":
    sys.exit(main())
