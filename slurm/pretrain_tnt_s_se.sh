#!/bin/bash
# TNT-S with squeeze-and-excitation on ImageNet, 300 epochs (Table 4: 81.6 % top-1).
#
#   sbatch slurm/pretrain_tnt_s_se.sh                                   as the paper has it
#   sbatch slurm/pretrain_tnt_s_se.sh recipe.epochs=100                 any setting of pipeline/train.py
#   sbatch --account=A --nodes=2 --gpus-per-node=4 --ntasks-per-node=4 slurm/pretrain_tnt_s_se.sh

#SBATCH --job-name=tnt-s-se
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8             # one process a GPU
#SBATCH --gpus-per-node=8
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
    model=tnt_s model.se=outer "$@"
