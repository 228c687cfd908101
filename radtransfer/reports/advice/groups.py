"""Which arms the rules of the advice compare with each other, and which are left for the best arms' own comparison."""

from collections.abc import Iterator

from radtransfer.reports.arms.arm_results import SETTINGS, ArmResults, ArmSummary, groups_of


def start_groups(found: ArmResults) -> Iterator[list[ArmSummary]]:
    """Arms, best first, that differ in their start alone."""
    yield from groups_of(found, ("backbone", "depth", *SETTINGS), by="start")


def depth_groups(found: ArmResults) -> Iterator[list[ArmSummary]]:
    """Arms, best first, that differ in how much of them trains alone."""
    for arms in groups_of(found, ("backbone", "start", *SETTINGS), by="depth"):
        known = [arm for arm in arms if arm.trainable is not None]
        if len(known) > 1:
            yield known


def size_groups(found: ArmResults) -> Iterator[list[ArmSummary]]:
    """The best arm of each network, best first, whatever it starts from and how it learns."""
    for arms in groups_of(found, ("context",), by="backbone"):
        best: dict[str, ArmSummary] = {}
        for arm in arms:
            best.setdefault(arm.backbone, arm)
        known = [arm for arm in best.values() if arm.parameters is not None]
        if len(known) > 1:
            yield known


def other_groups(found: ArmResults) -> Iterator[list[ArmSummary]]:
    """Arms of the same test images, best first, of which none is compared with another through the groups above.

    The groups above link arms to families; here is the best of each family.
    """
    family = {arm.name: frozenset({arm.name}) for arm in found.scored}
    for arms in [*start_groups(found), *depth_groups(found), *size_groups(found)]:
        joined = frozenset().union(*(family[arm.name] for arm in arms))
        family |= dict.fromkeys(joined, joined)
    best: dict[frozenset[str], ArmSummary] = {}
    for arm in found.scored:
        best.setdefault(family[arm.name], arm)
    by_images: dict[int, list[ArmSummary]] = {}
    for arm in best.values():
        by_images.setdefault(arm.images, []).append(arm)
    yield from (arms for arms in by_images.values() if len(arms) > 1)
