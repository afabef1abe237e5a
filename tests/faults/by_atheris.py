"""Changes the inputs of one reader for a time, led by what of the code each change reaches.

    python -m tests.faults.by_atheris tar --seconds 60

It ends at the first input that breaks the rule, which it leaves here as crash-… .
"""

import argparse
import sys
import tempfile

import atheris

with atheris.instrument_imports(include=["tnt", "pipeline"]):
    from tests.faults.fuzzed import CORPUS, READERS, ask


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("reader", choices=READERS)
    parser.add_argument("--seconds", type=int, default=60)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as found:
        limits = (f"-max_total_time={options.seconds}", "-rss_limit_mb=4000", "-timeout=20")
        words = [sys.argv[0], *limits, found, str(CORPUS / options.reader)]
        atheris.Setup(words, lambda content: ask(options.reader, content))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
