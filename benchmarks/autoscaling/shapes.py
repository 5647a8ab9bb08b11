"""Load shapes: requests per second, one figure for each second. Called by `__main__` and the simulation's test. The
ones that know chance take a seed; the others are the same for every one.

`recorded` is a day of the 1998 World Cup's site: requests in each ten minutes of one of its first days, with the outage
of that day. The trace is that of the Internet Traffic Archive (ita.ee.lbl.gov/html/contrib/WorldCup.html; M. Arlitt and
T. Jin, "A workload characterization study of the 1998 World Cup Web site", IEEE Network 14(3), 2000), as counted in
ten-minute bins by the GitHub repository HPCC-Cloud-Computing/press (lstm/data/wc98_day6-12_10min.csv).
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Rates = NDArray[np.float64]
_HOUR = 3600
_DAY_OF_1998 = (
    11583, 10294, 12019, 14168, 12445, 11616, 11611, 14856, 11714, 14946, 14143, 15283, 16026, 16116, 15095, 15048,
    18103, 16772, 16445, 16114, 15617, 17780, 16458, 15152, 14437, 18821, 18887, 15051, 17705, 17830, 15333, 17085,
    15922, 17123, 17307, 16825, 16412, 15689, 15064, 15111, 14951, 13600, 15357, 15657, 15849, 16825, 16616, 16643,
    15271, 13889, 15737, 14562, 12920, 14106, 14641, 13959, 13756, 13862, 10912, 7797, 1175, 1309, 6622, 10163,
    12321, 10990, 12297, 11579, 9756, 9625, 8829, 10937, 9868, 5684, 1682, 6526, 8270, 8330, 8703, 8876,
    8180, 9486, 8596, 8213, 8233, 6929, 8280, 7855, 8862, 7888, 7200, 7444, 6328, 6574, 8976, 6453,
    7694, 7935, 8380, 8706, 9270, 7451, 8095, 7867, 7432, 6175, 6340, 5066, 5536, 5406, 7473, 6486,
    8129, 8891, 8193, 7268, 8243, 7823, 9850, 8370, 9891, 10881, 11294, 11665, 12732, 11766, 10758, 11722,
    10067, 12441, 13828, 13805, 11880, 12945, 12754, 11623, 12868, 11638, 10217, 12685, 12962, 13045, 13048, 14755,
)  # fmt: skip
"""Requests in ten minutes each."""
_FASTER = 20
"""Times: ten minutes of the recording are half a minute here."""


def step(seed: int = 0) -> Rates:
    """Quiet, then at once eight times as much for twenty minutes, then quiet again."""
    rates = np.full(_HOUR, 6.0)
    rates[900:2100] = 48.0
    return rates


def ramp(seed: int = 0) -> Rates:
    """From little to much in half an hour, and back."""
    up = np.linspace(4.0, 60.0, _HOUR // 2)
    return np.concatenate([up, up[::-1]])


def spike(seed: int = 0) -> Rates:
    """Ten times as much for a minute, three times in an hour."""
    rates = np.full(_HOUR, 5.0)
    for start in (600, 1800, 3000):
        rates[start : start + 60] = 50.0
    return rates


def daily(seed: int = 7) -> Rates:
    """Two days in an hour each: a sine with a deep night, and a little noise from minute to minute."""
    noise = np.random.default_rng(seed)
    at = np.arange(2 * _HOUR)
    level = 25.0 * (1 - np.cos(2 * np.pi * at / _HOUR)) + 1.0
    return level * np.repeat(noise.uniform(0.9, 1.1, len(at) // 60), 60)


def noisy(seed: int = 11) -> Rates:
    """The same mean throughout; each ten seconds between half and one and a half of it."""
    noise = np.random.default_rng(seed)
    return np.repeat(30.0 * noise.uniform(0.5, 1.5, _HOUR // 10), 10)


def constant(seed: int = 0) -> Rates:
    """Nothing but the chance of single requests."""
    return np.full(_HOUR, 30.0)


def recorded(seed: int = 0) -> Rates:
    """A day of the World Cup's site, faster, and with two and a half requests for each that there was."""
    bins = np.repeat(np.array(_DAY_OF_1998, dtype=float), 600 // _FASTER)
    return bins / 600 * 2.5


SHAPES: dict[str, Callable[..., Rates]] = {
    shape.__name__: shape for shape in (step, ramp, spike, daily, noisy, constant, recorded)
}
