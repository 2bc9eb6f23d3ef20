"""The blocking face of a lock."""

from __future__ import annotations

import threading

import pytest

from redis_core.errors import LockTimeout
from redis_core.sync import connect


def test_threads_exclude_one_another() -> None:
    with connect(mock_redis=True) as redis:
        ws = redis.workspace("acme")
        inside: list[int] = []
        most: list[int] = []

        def work(number: int) -> None:
            with ws.lock("report", ttl=10, wait=20) as lease:
                assert lease.held
                inside.append(number)
                most.append(len(inside))
                lease.check()
                inside.remove(number)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert most == [1, 1, 1, 1]
        with ws.lock("report") as lease:
            assert lease.token.counter >= 5
            assert not lease.lost.is_set()
            with pytest.raises(LockTimeout):
                ws.lock("report", wait=0).acquire()
