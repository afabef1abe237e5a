import sys

from tnt.weights.models import main

if __name__ == "__main__":
    sys.exit(main())
