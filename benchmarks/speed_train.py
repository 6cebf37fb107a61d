"""Soft-prompt training on seedling against PEFT's P-tuning as documented (HF Trainer, fp32, random batches of 16), in real tokens a second."""

from common import quick
from training import claim

if __name__ == "__main__":
    claim("soft-prompt training, seedling, PEFT", "seedling", expert=False, goal=5.0, rounds=3 if quick() else 7)
