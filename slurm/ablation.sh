#!/bin/bash
# Plan and submit an ablation from a node, where a login node is not meant for that; its runs are jobs of their own.
#
#   sbatch slurm/ablation.sh ablation=inner_heads
#   sbatch slurm/ablation.sh ablation=all seeds=0,1,2 cluster.partition=gpu cluster.time=1-00:00:00

#SBATCH --job-name=tnt-ablation
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --time=00:20:00
#SBATCH --output=%x-%j.out
set -eu
: "${SLURM_JOB_ID:?is not set: start this file by sbatch $0}"
cd "$(scontrol show job "$SLURM_JOB_ID" | sed -n 's|^ *Command=\(.*\)/slurm/[a-z_]*\.sh.*|\1|p')"

srun --export=ALL sh pipeline/launching/slurm/rank.sh pipeline/launch.py cluster=slurm yes=true "$@"
