"""One cohort as operators see it. No secrets."""

from collections import Counter

from radios.lorawan.runner import Runner
from radios.radio import Json


def cohort_status(runner: Runner, airtime_s: float) -> Json:
    """`airtime_s`: of its multicast frames, all gateways together."""
    session = runner.session
    cohort = session.cohort
    steps: dict[str, Json] = dict(Counter(str(node.step) for node in session.nodes.values()))
    return {
        "cohort": cohort.cohort,
        "transfer": cohort.transfer,
        "fragments": cohort.nb_frag,
        "fragment_bytes": cohort.frag_size,
        "sent": session.highest_sent,
        "data_rate": cohort.data_rate,
        "gateways": list(cohort.gateways),
        "unicast": cohort.unicast,
        "nodes": steps,
        "nodes_by_unicast": sum(node.unicast for node in session.nodes.values()),
        "multicast_frames": runner.multicasts,
        "unicast_frames": runner.unicasts,
        "sent_by_gateways": runner.transmissions.sent,
        "refused_by_gateways": runner.transmissions.refused,
        "airtime_s": round(airtime_s, 3),
        "unicast_airtime_s": round(session.unicast_airtime_s, 3),
    }
