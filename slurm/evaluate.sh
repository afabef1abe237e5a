#!/bin/bash
# Top-1, top-5 and loss of a finished run, or of published weights.
#
#   sbatch slurm/evaluate.sh run=1a2b3c4d5e6f
#   sbatch slurm/evaluate.sh weights=tnt_s.safetensors model=tnt_s data=imagenet_v2

#SBATCH --job-name=tnt-evaluate
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=5
#SBATCH --time=01:00:00
#SBATCH --output=%x-%j.out
set -eu
: "${SLURM_JOB_ID:?is not set: start this file by sbatch $0}"
cd "$(scontrol show job "$SLURM_JOB_ID" | sed -n 's|^ *Command=\(.*\)/slurm/[a-z_]*\.sh.*|\1|p')"

srun --kill-on-bad-exit=1 --export=ALL --cpus-per-task="$SLURM_CPUS_PER_TASK" \
    ${WITHIN:-} sh pipeline/launching/slurm/rank.sh pipeline/evaluate.py "$@"
