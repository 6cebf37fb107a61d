#!/bin/bash
# Parts of a run by a Slurm array, without Ray: each job has a GPU and makes the I-th of N parts; the last one joins them and goes on.
# recipes/cluster/shards-slurm.sh recipes/cluster/ten-million.toml 64         OUT must lie on a file system that all nodes share and can lock.
set -euo pipefail
recipe=$1 parts=$2
array=$(sbatch --parsable --requeue --array="1-$parts" --gpus=1 --cpus-per-task=8 --mem=64G --time=24:00:00 \
  --wrap "seedbed doctor '$recipe' && seedbed run '$recipe' --shard \$SLURM_ARRAY_TASK_ID/$parts")
sbatch --dependency="afterok:$array" --cpus-per-task=8 --mem=32G --time=24:00:00 --wrap "seedbed run '$recipe'"
echo "When a part fails: sbatch --array=PART ... again, or this script; finished rows are kept."
