#!/bin/sh
# What a GPU is needed for: the kernels' tests on every shape (eight at a time, for the compiler), then the
# benchmark, which takes under 8 minutes.
#   sh benchmarks/gpu.sh OUT [tests|speed]    OUT/tests.txt, OUT/throughput.txt, OUT/benchmark-*.csv
set -eu
cd "$(dirname "$0")/.."
out=${1:?usage: sh benchmarks/gpu.sh OUT [tests|speed]}
part=${2:-both}
mkdir -p "$out"
if [ "$part" != speed ]; then
    python -m pytest -q -n 8 tests/tnt/fused/test_fused.py >"$out/tests.txt" 2>&1 || {
        tail -n 60 "$out/tests.txt"
        exit 1
    }
    tail -n 1 "$out/tests.txt"
fi
if [ "$part" != tests ]; then
    python benchmarks/throughput.py --preset gpu --csv "$out" >"$out/throughput.txt" 2>&1 || {
        tail -n 60 "$out/throughput.txt"
        exit 1
    }
    cat "$out/throughput.txt"
fi
