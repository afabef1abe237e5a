import subprocess
import sys

from tests.sources import ROOT


def test_what_tests_start_answers_ctrl_c_also_where_the_tests_themselves_ignore_it():
    child = "import signal; print(signal.getsignal(signal.SIGINT) == signal.default_int_handler)"
    tests = f"import subprocess, sys, tests.conftest; subprocess.run([sys.executable, '-c', {child!r}])"
    shell = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", sys.executable, "-c", tests]
    done = subprocess.run(shell, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"
