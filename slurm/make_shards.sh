#!/bin/bash
# ImageNet, or another set, as shards: an hour or two for ImageNet; killed and submitted again, it goes on.
#
#   sbatch slurm/make_shards.sh imagenet /datasets/ilsvrc2012 data/imagenet
#   sbatch slurm/make_shards.sh cifar10 cifar-10-python.tar.gz data/cifar10

#SBATCH --job-name=tnt-shards
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=16
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.out
set -eu
: "${SLURM_JOB_ID:?is not set: start this file by sbatch $0}"
cd "$(scontrol show job "$SLURM_JOB_ID" | sed -n 's|^ *Command=\(.*\)/slurm/[a-z_]*\.sh.*|\1|p')"

srun --export=ALL --cpus-per-task="$SLURM_CPUS_PER_TASK" \
    ${WITHIN:-} sh pipeline/launching/slurm/rank.sh pipeline/shards.py make "$@" --workers "$SLURM_CPUS_PER_TASK"
