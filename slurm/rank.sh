#!/bin/sh
# One process of a run, started by srun: until Python listens, the scheduler's signal would kill it.
trap '' USR1 USR2
exec "${PYTHON:-python}" "$@"
