#!/bin/bash
# Go on with pre-trained weights at 384 × 384 (Table 8); init= names a finished run, or a file of weights.
#
#   sbatch slurm/finetune.sh model=tnt_s init=1a2b3c4d5e6f
#   sbatch slurm/finetune.sh model=tnt_b init=tnt_b.safetensors data=cifar10 recipe=finetune_cifar

#SBATCH --job-name=tnt-finetune
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=4             # one process a GPU
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=5               # four of them decode images
#SBATCH --time=1-00:00:00               # at a stretch; the run goes on in the next one
#SBATCH --signal=USR1@120               # two minutes before the end: it saves, and asks to be requeued
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.out
set -eu
: "${SLURM_JOB_ID:?is not set: start this file by sbatch $0}"
cd "$(scontrol show job "$SLURM_JOB_ID" | sed -n 's|^ *Command=\(.*\)/slurm/[a-z_]*\.sh.*|\1|p')"

sh pipeline/launching/slurm/rank.sh -m pipeline.launching.slurm.supervision pipeline/train.py \
    recipe=finetune_384 "$@"
