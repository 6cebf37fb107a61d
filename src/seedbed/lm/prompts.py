"""P_theta: the contextual soft prompt of SoftSRV (DeSalvo et al., arXiv 2410.16534, section 3), from a context z in R^e to (t, d).

All forms work in units of the model's embedding RMS: parameters start at RMS 1, made from real token embeddings, and the output is
multiplied by the model's own RMS, so that one learning rate fits models whose embeddings differ in scale.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

Form = Literal["nsp", "mp", "mc"]


class SoftPrompt(nn.Module):
    """Maps contexts z (B, e) to soft prompts (B, t, d).

    nsp: one matrix P, z is ignored. mp: sum_j softmax(g(z))_j P_j over k matrices. mc: P + s * head(trunk(z)), a residual whose head starts
    at zero, so that training starts from `nsp`; trunk e -> hidden -> rank, head rank -> t * d, with dropout on z.
    """

    def __init__(self, form: Form, starts: torch.Tensor, rms: float, e: int, hidden: int = 256, rank: int = 64, dropout: float = 0.1) -> None:
        """starts: (k, t, d) token embeddings to begin from (k = 1 but for mp). rms: root mean square of one embedding weight."""
        super().__init__()
        self.form = form
        k, self.t, self.d = starts.shape
        self.dropout = dropout
        self.register_buffer("rms", torch.tensor(float(rms)))
        self.register_buffer("z_mean", torch.zeros(e))
        self.register_buffer("z_std", torch.ones(e))
        self.prompts = nn.Parameter(starts / starts.pow(2).mean(dim=(1, 2), keepdim=True).sqrt())
        if form == "mp":
            self.gate = nn.Linear(e, k)
            nn.init.zeros_(self.gate.weight)
            nn.init.zeros_(self.gate.bias)
        if form == "mc":
            self.trunk = nn.Sequential(nn.Linear(e, hidden), nn.GELU(), nn.Linear(hidden, rank), nn.GELU())
            self.head = nn.Linear(rank, self.t * self.d)
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(self.head.bias)
            self.scale = nn.Parameter(torch.ones(()))

    @property
    def name(self) -> str:
        """As a user knows it, for lines of progress and errors."""
        return self.form

    def forward(self, z: torch.Tensor, generator: torch.Generator | None = None, first: int | None = None) -> torch.Tensor:
        """(B, e) -> (B, t, d), or of mc the `first` vectors alone. With a generator, dropout on z is drawn from it; without, none is applied."""
        z = self.dropped((z - self.z_mean) / self.z_std, generator)  # type: ignore[operator]
        if self.form == "nsp":
            out = self.prompts.expand(len(z), -1, -1)
        elif self.form == "mp":
            out = torch.einsum("bk,ktd->btd", torch.softmax(self.gate(z), dim=-1), self.prompts)
        else:
            t = first or self.t
            residual = nn.functional.linear(self.trunk(z), self.head.weight[: t * self.d], self.head.bias[: t * self.d])
            out = self.prompts[:, :t] + self.scale * residual.view(len(z), t, self.d)
        return out * self.rms  # type: ignore[operator]

    def dropped(self, z: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        if generator is None or not self.dropout:
            return z
        keep = torch.rand(z.shape, generator=generator).to(z.device) >= self.dropout
        return z * keep / (1 - self.dropout)

    def groups(self, prompt_lr: float, network_lr: float, weight_decay: float) -> list[dict[str, object]]:
        """AdamW's parameter groups: the prompt matrices, and the network that reads z."""
        network = [p for n, p in self.named_parameters() if n != "prompts"]
        groups: list[dict[str, object]] = [{"params": [self.prompts], "lr": prompt_lr, "weight_decay": 0.0}]
        return groups + ([{"params": network, "lr": network_lr, "weight_decay": weight_decay}] if network else [])


def starts_from(embeddings: torch.Tensor, token_ids: list[int], k: int, t: int, generator: torch.Generator) -> torch.Tensor:
    """(k, t, d): embeddings of tokens drawn from the target's own texts."""
    ids = torch.tensor(token_ids)
    picked = ids[torch.randint(len(ids), (k, t), generator=generator)]
    return embeddings[picked.to(embeddings.device)].detach().float().cpu()
