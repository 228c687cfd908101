"""Advice on arms that were tested on different images: not to compare them."""

from collections.abc import Iterator

from radtransfer.reports.arms.arm_results import ArmResults
from radtransfer.reports.numbers import listed
from radtransfer.reports.page import Point


def other_images(found: ArmResults) -> Iterator[Point]:
    """Says which arms were tested on which images, where these are not the same."""
    sets: dict[int, list[str]] = {}
    for arm in found.scored:
        sets.setdefault(arm.images, []).append(arm.name)
    if len(sets) > 1:
        yield Point(
            "other images",
            f"{'; '.join(map(listed, sets.values()))}: tested on different images. Their AUCs are not compared, and "
            "which is higher says nothing of the networks. Train them on one data set, or test them on one with "
            "`radtransfer evaluate`.",
        )
