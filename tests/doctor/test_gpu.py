from dataclasses import replace

import pytest

from radtransfer.cli.doctor import GpuEvidence, gpu_finding

COMPLETE = GpuEvidence(seen=(), system="linux", visible=None, device=True, driver=True, built=True, missing=())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"device": False, "driver": False}, "no NVIDIA device and no driver"),
        ({"driver": False}, "cannot be loaded"),
        ({"built": False}, "built without CUDA"),
        ({"missing": ("nvidia-cudnn-cu12",)}, "CUDA libraries are not: nvidia-cudnn-cu12"),
        ({"device": False}, "a driver library and no device"),
        ({"visible": "-1"}, "CUDA_VISIBLE_DEVICES='-1' hides all"),
        ({"visible": ""}, "CUDA_VISIBLE_DEVICES='' hides all"),
        ({"system": "win32"}, "Windows since 2.11"),
        ({"system": "darwin"}, "macOS"),
        ({}, "still cannot use them"),
        ({"visible": "0,1"}, "still cannot use them"),
        ({"visible": "GPU-8932f937"}, "still cannot use them"),
    ],
)
def test_the_first_thing_in_the_way_is_named(changes, reason):
    finding = gpu_finding(replace(COMPLETE, **changes))
    assert finding.status == "note" and reason in finding.text


def test_gpus_that_are_seen_are_named():
    finding = gpu_finding(replace(COMPLETE, seen=("RTX A5000", "RTX A5000")))
    assert (finding.status, finding.text) == ("ok", "2 visible: RTX A5000, RTX A5000")
