# The shipped model, whole: sh pretrain/seedling.sh CORPUS EVALDATA WORK [STABLE_MINUTES] [DECAY_MINUTES]
# On a GPU the same command trains the larger size: give ENTRIES=8192 DEVICE_NOTE='one H200'. A stopped call goes on with --resume.
set -e
corpus=$1 eval=$2 work=$3 stable=${4:-75} decay=${5:-24}
python pretrain/corpus.py "$corpus" --out "$work/data" --entries "${ENTRIES:-4096}"
python pretrain/train.py --data "$work/data" --out "$work/checkpoints" --minutes "$stable" --decay 0 --length 256
python pretrain/train.py --data "$work/data" --out "$work/checkpoints" --minutes "$decay" --decay 1 --resume "$work"/checkpoints/step-*-stable
python pretrain/release.py "$work"/checkpoints/step-*-final --data "$work/data" --corpus "$corpus" --eval "$eval" \
  --device-note "${DEVICE_NOTE:-2 CPU cores}" --out src/seedbed/models/seedling

# The shipped model has read 3.4 M tokens more (LOG.md, 2026-11-24): from the folder that release.py had written, in $released,
#   train.py --minutes 17 --decay 0 --length 256 --muon-lr 0.015 --adam-lr 0.006 --resume "$released", then
#   train.py --minutes 13 --decay 1 --muon-lr 0.015 --adam-lr 0.006 --resume "$work"/checkpoints/step-*-stable, then release.py again.
