"""What every signed message and every pause between attempts is made of."""

import base64
from datetime import timedelta


def test_the_signature_is_the_one_that_the_specification_prints():
    from flows.alerting.webhooks import signature

    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    signed = signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_pauses_grow_within_their_jitter_up_to_six_hours():
    from flows.alerting.alerts import JITTER, pause_after

    for attempts, seconds in [(1, 30), (2, 120), (3, 480), (6, 21600), (11, 21600), (10**6, 21600)]:
        pauses = [pause_after(attempts, timedelta(0)).total_seconds() for _ in range(200)]
        assert seconds * (1 - JITTER) <= min(pauses) < seconds < max(pauses) <= seconds * (1 + JITTER)
