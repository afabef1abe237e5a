import sys

from tnt.figures.command import main

if __name__ == "__main__":
    sys.exit(main())
