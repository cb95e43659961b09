"""Which genes an audit scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..data.units import Units
from ..errors import InputError, did_you_mean, plural
from .pairs import Pair
from .predicted import Predicted

__all__ = ["asked_panels", "panels_to_score", "shared_genes", "why_no_panel"]


def shared_genes(read: Sequence[tuple[Pair, Predicted, Units]]) -> list[str]:
    """Genes of the first prediction, in its order, that every prediction has and some slide measured.

    A slide is scored on those that it measured.
    """
    _, first, measured = read[0]
    predicted_by_all = set(first.genes).intersection(*(predicted.genes for _, predicted, _ in read))
    somewhere = {gene for _, _, units in read for gene in units.genes}
    shared = [str(gene) for gene in first.genes if gene in predicted_by_all & somewhere]
    for _, predicted, units in read:
        if shared and not units.measures(shared).any():
            shared, first, measured = [], predicted, units
    if not shared:
        raise InputError(
            f"No gene is shared by {first.name} ({', '.join(first.genes[:3])}, ...) and {measured.name} "
            f"({', '.join(measured.genes[:3])}, ...){' and the others' if len(read) > 1 else ''}. Do both use symbols, "
            "or both ids?"
        )
    return shared


def asked_panels(
    genes: Sequence[str] | Mapping[str, Sequence[str]] | None, predictions: Sequence[Predicted], shared: Sequence[str]
) -> dict[str, list[str]]:
    """The panels to score: the given ones, else those that all predictions name, if the first of them is whole."""
    if isinstance(genes, Mapping):
        return {name: list(dict.fromkeys(panel)) for name, panel in genes.items()}
    if genes is not None:
        return {"asked": list(dict.fromkeys(genes))}
    named = predictions[0].panels
    agree = named and all(predicted.panels == named for predicted in predictions)
    return named if agree and set(next(iter(named.values()))) <= set(shared) else {}


def panels_to_score(shared: list[str], asked: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Each panel's genes among the shared ones, and those all."""
    present = set(shared)
    chosen = {name: [gene for gene in panel if gene in present] for name, panel in asked.items()}
    if asked and not next(iter(chosen.values())):
        wanted = next(iter(asked.values()))
        if not wanted:
            raise InputError("No gene is given: name one, or leave genes out to score all shared ones.")
        raise InputError(
            f"None of the {plural(len(wanted), 'gene')} is among the {len(shared)} that predictions and "
            f"measurements share ({', '.join(shared[:3])}, ...).{did_you_mean(wanted[0], shared)}"
        )
    return {**{name: panel for name, panel in chosen.items() if panel}, "shared": shared}


def why_no_panel(
    predictions: Sequence[Predicted], asked: Mapping[str, Sequence[str]], shared: Sequence[str]
) -> list[str]:
    """Why no panel is scored where predictions name one."""
    named = {} if asked else predictions[0].panels
    if not named:
        return []
    name, panel = next(iter(named.items()))
    missing = len(set(panel) - set(shared))
    reason = f"{missing} of its {len(panel)} genes are not in every file" if missing else "they name different ones"
    return [
        f"The panel that the predictions name ({name}) is not scored, since {reason}: figures over all {len(shared)} "
        "shared genes do not compare with those over the panel. pixnet predict --set all_genes=true writes all of it."
    ]
