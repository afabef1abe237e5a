#!/bin/sh
# Everything that a GPU is needed for, in one run: the kernels' tests, then the benchmark (under 8 minutes).
#   sh benchmarks/gpu.sh OUT          writes OUT/tests.txt, OUT/throughput.txt and OUT/benchmark-*.csv
set -eu
cd "$(dirname "$0")/.."
out=${1:?usage: sh benchmarks/gpu.sh OUT}
mkdir -p "$out"
python -m pytest -q -p no:cacheprovider tests/tnt/test_fused.py >"$out/tests.txt" 2>&1 || { tail -40 "$out/tests.txt"; exit 1; }
tail -1 "$out/tests.txt"
PYTHONPATH=. python benchmarks/throughput.py --preset gpu --csv "$out" 2>&1 | tee "$out/throughput.txt"
