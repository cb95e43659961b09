from .merge import merge_config
from .root import bundle_root
from .run import run_config

__all__ = ["bundle_root", "merge_config", "run_config"]
