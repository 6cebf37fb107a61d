#!/bin/bash
# A Ray cluster inside one Slurm job: a head without a hand on the first node, a hand on each GPU of the others.
# sbatch recipes/cluster/ray-slurm.sh recipes/cluster/ten-million.toml        When the job's time is up: the same command again.
#SBATCH --nodes=9 --ntasks-per-node=1 --cpus-per-task=8 --gpus-per-node=1 --time=24:00:00 --requeue
set -euo pipefail
recipe=$1
port=6379
nodes=($(scontrol show hostnames "$SLURM_JOB_NODELIST"))
head=${nodes[0]}
export RAY_ADDRESS="$head:$port"

srun --nodes=1 --ntasks=1 -w "$head" ray start --head --port="$port" --num-cpus=0 --num-gpus=0 --block &
until ray health-check --address "$RAY_ADDRESS" 2>/dev/null; do sleep 2; done
srun --nodes=$((SLURM_NNODES - 1)) --ntasks=$((SLURM_NNODES - 1)) --exclude="$head" ray start --address="$RAY_ADDRESS" --num-gpus=1 --block &
until [ "$(ray status 2>/dev/null | grep -c node_)" -ge 2 ]; do sleep 2; done   # one hand is enough to begin; hands are counted at the start

srun --overlap --nodes=1 --ntasks=1 -w "$head" seedbed run "$recipe" --out "$SLURM_SUBMIT_DIR/runs" --on ray
