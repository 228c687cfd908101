import pytest

from radtransfer.cli.options import given_settings
from radtransfer.cli.train import OPTIONS, split_workers_option


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4", {"system.workers": 4}),
        ("a:1,b:2", {"system.hosts": "a:1,b:2"}),
    ],
)
def test_workers_are_a_number_or_hosts(text, expected):
    assert given_settings(*split_workers_option(dict.fromkeys(OPTIONS) | {"workers": text})) == expected
