"""The short version of the campaign, which `make chaos` does at length."""

import os
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.cluster]


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        import campaign

        yield campaign.Campaign(tmp_path_factory.mktemp("chaos"))
        sys.modules.pop("campaign", None)


def test_kills(campaign):
    assert campaign.kills(3) == 3


def test_a_full_disk(campaign):
    campaign.full_disk()


@pytest.mark.skipif(os.geteuid() == 0, reason="the administrator may write everywhere; make chaos forbids it")
def test_a_folder_that_may_not_be_written(campaign):
    campaign.read_only()


def test_two_benchmarks_on_one_store(campaign):
    campaign.two_at_once()
