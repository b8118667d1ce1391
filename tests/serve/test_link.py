"""How many pictures are on their way, how good they are, and how many messages are too many."""
from worldplay.serve.link import BURST, MAX_IN_FLIGHT, QUALITIES, RATE, Flow, Limit

PERIOD = 0.05


def played(flow, *, way, per_picture, pictures):
    """Send through a link that takes `way` seconds there and back, and lets one picture through at a time;
    returns the delay of each picture.
    """
    now, is_free, coming, delays, number = 0.0, 0.0, [], [], 0
    flow.measured(way)
    while number < pictures:
        for at, arrived in [(at, arrived) for at, arrived in coming if at <= now]:
            flow.acked(arrived, at)
        coming = [(at, arrived) for at, arrived in coming if at > now]
        number += 1
        if flow.may_send:
            flow.sent(number, now)
            is_free = max(is_free, now) + per_picture(flow.quality)
            coming.append((is_free + way, number))
            delays.append(is_free + way - now)
        now += PERIOD
    for at, arrived in coming:
        flow.acked(arrived, at)
    return delays


def test_a_quick_link_has_one_picture_in_flight_and_the_best_quality():
    flow = Flow(PERIOD)
    delays = played(flow, way=0.001, per_picture=lambda quality: 0.002, pictures=200)
    assert len(delays) == 200 and flow.quality == QUALITIES[0]
    flow.sent(1000, 0.0)
    assert not flow.may_send


def test_a_long_link_keeps_the_rate():
    flow = Flow(PERIOD)
    delays = played(flow, way=0.1, per_picture=lambda quality: 0.002, pictures=400)
    assert len(delays) >= 395 and max(delays) < 0.11 and flow.quality == QUALITIES[0]


def test_a_narrow_link_drops_pictures_and_builds_no_delay():
    flow = Flow(PERIOD)
    delays = played(flow, way=0.02, per_picture=lambda quality: 0.4 * quality / QUALITIES[0], pictures=1000)
    assert max(delays[5:]) <= 0.02 + 0.4, "one picture and no more"
    assert flow.quality < QUALITIES[0] and len(delays) > 300


def test_quality_comes_back():
    flow = Flow(PERIOD)
    played(flow, way=0.0, per_picture=lambda quality: 0.4, pictures=400)
    assert flow.quality == QUALITIES[-1]
    played(flow, way=0.0, per_picture=lambda quality: 0.002, pictures=1000)
    assert flow.quality == QUALITIES[0]


def test_without_an_answer_nothing_more_is_sent():
    flow = Flow(PERIOD)
    flow.measured(60.0)
    sent = [number for number in range(100) if flow.may_send and not flow.sent(number, 0.0)]
    assert len(sent) == MAX_IN_FLIGHT
    flow.acked(12345, 1.0)  # one that was never sent
    assert not flow.may_send


def test_too_many_messages_are_noticed():
    limit = Limit(0.0)
    assert all(limit.allows(i / RATE) for i in range(5 * RATE)), "so many are fine for ever"
    at_once = [limit.allows(5.0) for _ in range(2 * BURST)]
    assert at_once[BURST - 10] and not at_once[-1]
