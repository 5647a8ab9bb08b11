"""A replica that a request has started (`listen.hold`): who came before it was ready waits and is answered."""

import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from runtime.tests.replica import python_version, running, tensor

LOADING = """
import os, time
class Model:
    signature = {"inputs": [{"name": "x", "datatype": "FP64", "shape": [-1]}],
                 "outputs": [{"name": "y", "datatype": "FP64", "shape": [-1]}]}
    def load(self, path):
        open(BEGUN, "w").close()
        while not os.path.exists(GATE):
            time.sleep(0.002)
    def predict(self, inputs):
        return inputs["x"] * 2
"""
HELD = {"hold": True}


class Loading:
    """A version whose model loads until `gate` is there; `begun` is there when it does."""

    def __init__(self, folder, **settings):
        self.gate, self.begun = folder / "gate", folder / "begun"
        source = LOADING.replace("BEGUN", repr(str(self.begun))).replace("GATE", repr(str(self.gate)))
        self.config = python_version(folder, source, **settings).write()

    def wait_begun(self, replica):
        replica.wait_for(self.begun.exists)


def infer(replica, value, size=1):
    answer = replica.infer({"inputs": [tensor(np.full(size, float(value)), "x")]})
    return answer.status, answer.json().get("outputs", [{}])[0].get("data", [None])[-1]


def test_who_comes_while_it_loads_is_answered_when_it_is_ready(tmp_path):
    loading = Loading(tmp_path)
    with running(loading.config, ready=False, listen=HELD) as replica, ThreadPoolExecutor(100) as pool:
        waiting = [pool.submit(infer, replica, number) for number in range(100)]
        loading.wait_begun(replica)
        assert not any(one.done() for one in waiting)
        loading.gate.touch()
        assert [one.result(60) for one in waiting] == [(200, 2.0 * number) for number in range(100)]
        assert infer(replica, 7) == (200, 14.0)
        took_over = [line for line in replica.log_lines() if line["message"] == "took over"]
        assert [line["connections"] for line in took_over] == [100]


def test_who_waited_is_let_in_no_faster_than_there_is_room(tmp_path):
    """A queue of 4 and memory for 8 bodies: 60 at once of nearly the largest size would be refused by any other."""
    loading = Loading(tmp_path, queue={"maxLength": 4}, maxBodyBytes=65536, batch={"maxSize": 1})
    with running(loading.config, ready=False, listen=HELD) as replica, ThreadPoolExecutor(60) as pool:
        waiting = [pool.submit(infer, replica, 1, 12_000) for _ in range(60)]
        loading.wait_begun(replica)
        loading.gate.touch()
        assert {one.result(60) for one in waiting} == {(200, 2.0)}


def test_who_has_gone_holds_up_nobody(tmp_path):
    loading = Loading(tmp_path, queue={"maxLength": 2})
    with running(loading.config, ready=False, listen=HELD) as replica:
        silent = [socket.socket(socket.AF_UNIX) for _ in range(6)]
        try:
            for number, client in enumerate(silent):
                client.connect(replica.address)
                if number % 2:
                    client.close()
            loading.wait_begun(replica)
            answers = []
            asking = threading.Thread(target=lambda: answers.append(infer(replica, 3)))
            asking.start()
            loading.gate.touch()
            asking.join(60)
            assert answers == [(200, 6.0)]
        finally:
            for client in silent:
                client.close()


def test_sigterm_while_it_loads_ends_it(tmp_path):
    loading = Loading(tmp_path)
    with running(loading.config, ready=False, listen=HELD) as replica:
        loading.wait_begun(replica)
        replica.terminate()
        assert replica.wait_end() == 0


def test_hold_is_true_or_false_and_for_a_descriptor(tmp_path):
    config = Loading(tmp_path).config
    with running(config, ready=False, listen={"hold": "yes"}) as replica:
        assert replica.wait_end() == 2
        assert "listen.hold: expected true or false" in replica.logged()
    with running(config, ready=False, listen={"uds": str(tmp_path / "s"), "backlog": 1}) as replica:
        assert replica.wait_end() == 2
