import os
import subprocess
import sys
import time

import pytest

from qa.bench.process_usage import Meter, resident_mib, slope_per_hour


def test_a_meter_includes_children_that_have_ended():
    burn = "import time\nend = time.process_time() + 0.2\nwhile time.process_time() < end: pass"
    with Meter({"me": os.getpid()}) as meter:
        subprocess.run([sys.executable, "-S", "-c", burn], check=True)
    assert meter.seconds["me"] >= 0.15
    assert meter.per_order(10, other=1.0) == {"me": pytest.approx(100 * meter.seconds["me"]), "other": 100.0}


def test_resident_memory_is_in_mib():
    assert 5 < resident_mib(os.getpid()) < 5000
    assert resident_mib(2**22 + 1) == 0.0


def test_the_slope_of_memory_is_in_mib_an_hour():
    began = time.monotonic()
    assert slope_per_hour([(began + second, 100 + second / 360) for second in range(60)]) == pytest.approx(10)
    assert slope_per_hour([(began, 100.0)]) == 0
