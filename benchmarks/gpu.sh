#!/bin/sh
# What a GPU is needed for, in two calls meant to take under 9 minutes each; benchmarks/README.md says more.
#   sh benchmarks/gpu.sh OUT tests    the kernels against PyTorch on the device, all shapes: OUT/tests-*.txt
#   sh benchmarks/gpu.sh OUT speed    images a second, TNT-S first: OUT/throughput.txt, OUT/benchmark-*.csv; then
#                                     each part beside its prediction, and the trainer: OUT/components.txt, training.txt
# Without a GPU all of it runs small, with the interpreter for kernels, to see that it works.
# What was found stands in OUT as it comes, also where the time runs out.
set -eu
cd "$(dirname "$0")/.."
usage="usage: sh benchmarks/gpu.sh OUT tests|speed"
out=${1:?$usage}
part=${2:?$usage}
python=$(command -v python || command -v python3)
export PYTHONPATH=. PYTHONUNBUFFERED=1
preset=$("$python" -c "import torch; print('gpu' if torch.cuda.is_available() else 'cpu')")
[ "$preset" = cpu ] || export TRITON_INTERPRET=0
mkdir -p "$out"

checked() {  # name, tests
    "$python" -m pytest -q -p no:cacheprovider tests/tnt/fused tests/tnt/test_attention.py -k "$2" \
        >"$out/tests-$1.txt" 2>&1 || { cat "$out/tests-$1.txt"; return 1; }
    echo "$1: $(tail -n 1 "$out/tests-$1.txt")"
}

shown() {  # name, script and its arguments
    name=$1
    shift
    "$python" "$@" >"$out/$name.txt" 2>&1 || status=$?
    cat "$out/$name.txt"
}

status=0
case $part in
tests)
    # Each shape is compiled: the shapes of every number of heads beside the others, for the compiler.
    running=
    checked rest "not every_gradient" & running="$running $!"
    for heads in 1 2 3 4 5 6 8; do
        checked "$heads-heads" "every_gradient and x$heads-" & running="$running $!"
    done
    for one in $running; do wait "$one" || status=1; done
    ;;
speed)
    small=
    [ "$preset" = gpu ] || small="--steps 12 --batch 8 --photographs 48"
    shown throughput benchmarks/network/throughput.py --preset "$preset" --csv "$out"
    shown components benchmarks/network/components.py "$out"
    # shellcheck disable=SC2086  # several words
    shown training benchmarks/training.py "$out" $small
    ;;
*)
    echo "$usage" >&2
    exit 2
    ;;
esac
exit $status
