"""What a configuration may hold: literals and code, the values that suit a key, and what needs trust.

Each part is imported when it is used, so that `pixnet --help` does not wait for MONAI.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={"merge": ["merge_config"], "root": ["bundle_root"], "run": ["run_config"]}
)
