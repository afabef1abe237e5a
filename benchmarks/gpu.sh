#!/bin/sh
# What a GPU is needed for, in two calls that take under 9 minutes each; benchmarks/README.md says what it needs.
#   sh benchmarks/gpu.sh OUT tests    the network and its kernels on the device, all shapes: OUT/tests.txt
#   sh benchmarks/gpu.sh OUT speed    images a second, TNT-S first: OUT/throughput.txt, OUT/benchmark-*.csv
# What was found stands in OUT as it comes, also where the time runs out.
set -eu
cd "$(dirname "$0")/.."
out=${1:?usage: sh benchmarks/gpu.sh OUT tests|speed}
part=${2:?usage: sh benchmarks/gpu.sh OUT tests|speed}
python=$(command -v python || command -v python3)
export PYTHONPATH=. PYTHONUNBUFFERED=1 TRITON_INTERPRET=0
mkdir -p "$out"
case $part in
tests)
    # Kernels are compiled for each shape, eight at a time where the tests can be dealt out.
    many=$("$python" -c "import xdist" 2>"$out/xdist.txt" && echo "-n 8" || true)
    set -- -m pytest -q -p no:cacheprovider $many tests/tnt/fused tests/tnt/test_attention.py
    file=tests.txt
    ;;
speed)
    set -- benchmarks/throughput.py --preset gpu --csv "$out"
    file=throughput.txt
    ;;
*)
    echo "error: $part is neither tests nor speed" >&2
    exit 2
    ;;
esac
status=0
"$python" "$@" >"$out/$file" 2>&1 || status=$?
tail -n 100 "$out/$file"
exit $status
