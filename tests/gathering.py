"""`python -m torch.distributed.run ... -m tests.gathering OUT SLIDES`: each rank scores its share of generated slides.

Rank 0 writes what the metric makes of them all; a rank may have none.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch.distributed as dist

from bundle.files.atomic import write_json
from tests.bundle.metrics.test_metric import _metric, _slide

if __name__ == "__main__":
    out, shares = Path(sys.argv[1]), json.loads(sys.argv[2])
    dist.init_process_group("gloo")
    metric = _metric()
    for index in shares[dist.get_rank()]:
        pooled, slide = _slide(index)
        metric([pooled], [slide])
    result = metric.aggregate()
    if dist.get_rank() == 0:
        del result["per_gene"]
        write_json(out, result)
    dist.barrier()
    dist.destroy_process_group()
