"""Power failures and deaths in mid-write, in short: mistakes are found, and the library makes none.

`nox -s powerfail` and `nox -s kill_formats` are the long forms, and say more.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
COMPILER = os.environ.get("CC", "cc").split()[0]

pytestmark = pytest.mark.nosan  # other processes, a preloaded library


@pytest.mark.skipif(shutil.which(COMPILER) is None, reason="needs a C compiler")
@pytest.mark.parametrize("store", ["record", "ndarena"])
def test_simulated_power_failures(python, store: str) -> None:
    campaign = TESTS / "powerfail" / "campaign.py"
    done = python(campaign, "--short", "--store", store, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    images = sum(map(int, re.findall(r": (\d+) images", done.stdout)))
    assert images >= 200, done.stdout


def test_deaths_in_mid_write(python) -> None:
    """Files of np.savez do not survive them, which shows that they are in mid-write."""
    formats = ("--format", "ndarena", "--format", "np.savez")
    done = python(TESTS / "kill" / "formats.py", "--deaths", "10", *formats, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()}
    assert lines["ndarena"][0] == "10"
    assert lines["ndarena"][2:5] == ["0", "0", "0"]
    assert int(lines["np.savez"][2]) > 0
