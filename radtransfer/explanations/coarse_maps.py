"""Maps of so few positions that they show a region at most, and where finer ones are."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from radtransfer.explanations.scored_network import ScoredNetwork

FINE = 7
"""Positions along a side below which a map is coarse: most networks have 7 at the size they are made for."""


def coarse_map_note(network: "ScoredNetwork") -> str | None:
    """What to know of the network's map if it is coarser than 7×7, and the stage that would be finer; else None."""
    if min(network.grid) >= FINE:
        return None
    pixels = round(network.image_size / min(network.grid))
    covers = f"a map of {_times(network.grid)} is coarse: one value covers {pixels}×{pixels} pixels of "
    covers += f"{network.image_size}×{network.image_size}, a region rather than a spot"
    stage = finer_stage(network)
    if stage is None:
        return f"{covers}; a network of larger images has a finer one"
    return f"{covers}; --layer {stage} has {_times(network.stage_grids[stage])}"


def finer_stage(network: "ScoredNetwork") -> str | None:
    """The last stage whose map is fine, else the finest of those that are finer than the network's; None without."""
    finer = {stage: grid for stage, grid in network.stage_grids.items() if min(grid) > min(network.grid)}
    fine = [stage for stage, grid in finer.items() if min(grid) >= FINE]
    return fine[-1] if fine else max(finer, key=lambda stage: min(finer[stage]), default=None)


def _times(grid: tuple[int, int]) -> str:
    return f"{grid[0]}×{grid[1]}"
