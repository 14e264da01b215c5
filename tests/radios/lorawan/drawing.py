"""How many examples hypothesis draws for whole deliveries, which take long.

The suite draws a few, always the same. `GATEWAYD_EXAMPLES=50` draws fifty times as many, other ones each time, and makes
them small when one fails: for a long run by hand.
"""

import os

from hypothesis import HealthCheck, Phase, settings

TIMES = int(os.environ.get("GATEWAYD_EXAMPLES", "1"))


def few(examples):
    quick = TIMES == 1
    return settings(
        max_examples=examples * TIMES,
        deadline=None,
        derandomize=quick,
        database=None,
        phases=[Phase.explicit, Phase.generate] if quick else [Phase.explicit, Phase.generate, Phase.shrink],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        print_blob=True,
    )
