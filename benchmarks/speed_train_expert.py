"""Soft-prompt training on seedling against PEFT's P-tuning as an expert sets it: grouped by length, in fp32 or bf16, whichever is faster."""

from common import quick
from training import claim

if __name__ == "__main__":
    claim("soft-prompt training, seedling, expert's PEFT", "seedling", expert=True, goal=1.5, rounds=3 if quick() else 7)
