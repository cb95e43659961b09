from __future__ import annotations

import torch
from torch.nn import functional as F

from networks.safb import SAFB


def scrambled() -> SAFB:
    torch.manual_seed(0)
    block = SAFB(3, 4)
    torch.nn.init.normal_(block.batch_norm.running_mean)
    torch.nn.init.uniform_(block.batch_norm.running_var, 0.5, 2)
    torch.nn.init.normal_(block.layer_norm.weight)
    return block.eval()


def test_equals_the_formula_cell_by_cell() -> None:
    block, skip, up = scrambled(), torch.randn(1, 3, 5, 6), torch.randn(1, 4, 5, 6)
    got = block(skip, up)
    padded = F.pad(skip, (1, 1, 1, 1))
    for i, j in [(0, 0), (2, 3), (4, 5)]:
        s = (padded[0, :, i : i + 3, j : j + 3] * block.depthwise.weight[:, 0]).sum((1, 2)) + block.depthwise.bias
        e = block.pointwise.weight[:, :, 0, 0] @ (s * s.sigmoid()) + block.pointwise.bias
        e = (e - e.mean()) / (e.var(correction=0) + block.layer_norm.eps).sqrt()
        e = e * block.layer_norm.weight + block.layer_norm.bias + s
        e = e * e.sigmoid()
        norm = block.batch_norm
        e = (e - norm.running_mean) / (norm.running_var + norm.eps).sqrt()
        u = up[0, :, i, j]
        qkv = block.qkv.weight[:, :, 0, 0] @ torch.cat([e, u]) + block.qkv.bias
        attention = (qkv[:4] * qkv[4:8]).exp()
        torch.testing.assert_close(got[0, :, i, j], attention / attention.sum() * qkv[8:] + u, rtol=1e-4, atol=1e-5)


def test_a_cell_depends_on_its_neighbours_only() -> None:
    block, up = scrambled(), torch.randn(1, 4, 9, 9)
    skip = torch.randn(1, 3, 9, 9)
    other = skip.clone()
    other[..., 4, 4] += 1
    changed = (block(skip, up) != block(other, up)).any(1)[0]
    assert changed[3:6, 3:6].all()
    assert changed.sum() == 9
