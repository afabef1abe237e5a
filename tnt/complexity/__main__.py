import sys

from tnt.complexity.sizes import main

if __name__ == "__main__":
    sys.exit(main())
