#!/bin/sh
# One process of a run, as srun starts it:  sh pipeline/launching/slurm/rank.sh pipeline/train.py model=tnt_s
# It runs the code of the folder it is in, with $PYTHON, or the Python of .venv there, or the shell's.

trap '' USR1 USR2 TERM  # until Python listens, a signal of the scheduler's would kill it
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}"
if [ -z "${PYTHON:-}" ] && [ -x .venv/bin/python ]; then
    PYTHON=.venv/bin/python
fi
exec "${PYTHON:-python}" "$@"
