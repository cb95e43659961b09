"""The table of recipes: what is trained, and why."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bundle.config.root import bundle_root
from bundle.errors import InputError

from .folds import STAGES

__all__ = ["TABLE", "Recipe", "Table", "read_table"]

TABLE = Path(__file__).with_name("recipes.json")
_RECIPE_KEYS = {"stages", "configs", "set", "predict", "seeds", "why"}


@dataclass(frozen=True)
class Recipe:
    """One way to train and predict.

    Attributes:
        name: its name.
        why: what is different in it.
        stages: where it runs when no recipe is named.
        configs: configurations merged over `configs/train.json`, as paths from the root of the repository.
        set: keys and values over those.
        predict: keys and values of `configs/evaluate.json`; recipes that differ only here share one training.
        seeds: fewer seeds than the table's, for what is slow.
    """

    name: str
    why: str
    stages: tuple[str, ...] = STAGES
    configs: tuple[str, ...] = ()
    set: dict[str, Any] = field(default_factory=dict)
    predict: dict[str, Any] = field(default_factory=dict)
    seeds: int | None = None

    def files(self) -> list[Path]:
        """The configurations to merge, the time budget's last."""
        root = bundle_root()
        return [*(root / config for config in self.configs), root / "benchmarks/accuracy/budget.json"]

    def training(self) -> dict[str, Any]:
        """What the training depends on beside `configs/train.json`."""
        return {"configs": [json.loads(path.read_text()) for path in self.files()], "set": self.set}


@dataclass(frozen=True)
class Table:
    """All recipes, and what holds for each of them.

    Attributes:
        recipes: by name.
        reference: the recipe that screening compares with.
        min_total: units with fewer counts are left out.
    """

    recipes: dict[str, Recipe]
    reference: str
    min_total: float

    def of(self, stage: str, only: list[str] | None = None) -> list[Recipe]:
        """The stage's recipes, or those named."""
        unknown = [name for name in only or [] if name not in self.recipes]
        if unknown:
            raise InputError(f"There is no recipe {', '.join(unknown)}; there are {', '.join(self.recipes)}.")
        return [r for r in self.recipes.values() if (r.name in only if only else stage in r.stages)]


def read_table(path: str | Path | None = None) -> Table:
    """Read the table; the one of this benchmark by default.

    Raises:
        InputError: if it cannot be read, or a recipe has a key or names a file that does not exist.
    """
    path = Path(path or TABLE)
    try:
        content = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise InputError(f"{path} cannot be read as a table of recipes ({error}).") from error
    recipes = {}
    for name, given in content["recipes"].items():
        strange = set(given) - _RECIPE_KEYS
        if strange or "why" not in given:
            raise InputError(f'{path}: {name} needs a "why" and may have {", ".join(sorted(_RECIPE_KEYS))}.')
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
        recipe = Recipe(name, **fields)
        for file in recipe.files():
            if not file.is_file():
                raise InputError(f"{path}: {name} needs {file}, which does not exist.")
        recipes[name] = recipe
    return Table(recipes, content["reference"], float(content["min_total"]))
