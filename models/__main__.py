"""``python -m models NAME``: print the path of a model that an installed package carries."""

import sys

from models import PACKAGED, packaged

if len(sys.argv) != 2:
    sys.exit(f"usage: python -m models NAME, one of {', '.join(PACKAGED)}")
try:
    print(packaged(sys.argv[1]))
except LookupError as error:
    sys.exit(str(error))
