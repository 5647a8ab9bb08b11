"""The life of a replica: start, readiness, refusal to start, drain."""

import contextlib
import json
import os
import signal
import socket
import threading
import time

import numpy as np
import pytest

from runtime.tests.replica import Connection, inspect, python_version, running, tensor

DOUBLE = """
class Model:
    signature = {"inputs": [{"name": "x", "datatype": "FP64", "shape": [-1]}],
                 "outputs": [{"name": "y", "datatype": "FP64", "shape": [-1]}]}
    def predict(self, inputs):
        return inputs["x"] * 2
"""
SLOW = "import time\n" + DOUBLE.replace("return", "time.sleep(0.02)\n        return")
LOADING = """
import os, time
class Model:
    def load(self, path):
        while not os.path.exists(GATE):
            time.sleep(0.002)
    def predict(self, inputs):
        return inputs["x"]
"""


def x(*values):
    return {"inputs": [tensor(np.array(values, dtype=float), "x")]}


def ends(config, code):
    """Start a replica that must end by itself; return its last words."""
    with running(config, ready=False) as replica:
        assert replica.wait_end() == code, replica.logged()
        assert replica.process.stdout.read() == b""
        return replica.logged().splitlines()[-1]


def test_liveness_answers_before_readiness(tmp_path):
    gate = tmp_path / "gate"
    version = python_version(tmp_path, LOADING.replace("GATE", repr(str(gate))))
    with running(version.write(), ready=False) as replica:
        replica.wait_for(lambda: replica.ask("GET", "/v2/health/live").status == 200)
        waiting = replica.ask("GET", "/v2/health/ready")
        assert (waiting.status, waiting.json()) == (503, {"ready": False, "phase": "loading"})
        assert replica.ask("GET", "/v2/models/churn/ready").status == 503
        assert replica.ask("GET", "/v2/models/churn").status == 503
        assert replica.infer(x(1)).status == 503
        gate.touch()
        replica.wait_ready()
        assert replica.infer(x(1)).status == 200


def test_sigterm_while_loading_ends_with_0(tmp_path):
    version = python_version(tmp_path, LOADING.replace("GATE", repr(str(tmp_path / "never"))))
    with running(version.write(), ready=False) as replica:
        replica.wait_for(lambda: replica.ask("GET", "/v2/health/live").status == 200)
        replica.terminate()
        assert replica.wait_end() == 0


def test_a_flipped_bit_is_refused_with_3_before_anything_is_imported(tmp_path):
    proof = tmp_path / "imported"
    config = python_version(tmp_path, f"open({str(proof)!r}, 'w')\n{DOUBLE}").write()
    path = tmp_path / "model" / "mymodel.py"
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)
    assert "mymodel.py: the stored bytes have sha256" in ends(config, 3)
    assert not proof.exists()


def test_another_manifest_is_refused_with_3(tmp_path):
    config = python_version(tmp_path, DOUBLE).write()
    manifest = tmp_path / "manifest.json"
    manifest.write_bytes(manifest.read_bytes() + b" ")
    assert "approved is sha256:" in ends(config, 3)


def test_a_model_that_does_not_load_ends_with_4_and_its_own_words(tmp_path):
    source = "class Model:\n    def load(self, path):\n        raise RuntimeError('weights are missing')"
    config = python_version(tmp_path, source + "\n    def predict(self, inputs): ...\n").write()
    with running(config, ready=False) as replica:
        assert replica.wait_end() == 4
        assert "RuntimeError: weights are missing" in replica.logged()


def test_a_model_that_exits_while_loading_ends_with_4(tmp_path):
    config = python_version(tmp_path, "raise SystemExit(0)").write()
    with running(config, ready=False) as replica:
        assert replica.wait_end() == 4


def test_a_declared_example_must_work(tmp_path):
    example = {"example": x(1, 2)}
    with running(python_version(tmp_path, DOUBLE, warmup=example).write()) as replica:
        assert replica.metric("ready") == 1
    failing = DOUBLE.replace("return", "raise ValueError('not for me')\n        return")
    assert "ValueError: not for me" in ends(python_version(tmp_path, failing, warmup=example).write(), 4)
    wrong = {"example": {"inputs": [tensor(np.ones((1, 2)), "x")]}}
    assert "inputs[0].shape" in ends(python_version(tmp_path, DOUBLE, warmup=wrong).write(), 4)


def test_a_made_up_example_may_fail(tmp_path):
    picky = DOUBLE.replace("return", "assert (inputs['x'] > 0).all()\n        return")
    with running(python_version(tmp_path, picky).write()) as replica:
        assert replica.infer(x(1)).status == 200
        warnings = [line for line in replica.log_lines() if line["level"] == "warning"]
        assert "made-up warm-up input" in warnings[0]["message"]
        assert warnings[0]["exception"] == "AssertionError"


def test_a_bad_configuration_ends_with_2(tmp_path):
    config = python_version(tmp_path, DOUBLE, threads=0).write()
    assert ends(config, 2) == "podium-runtime: threads: expected a whole number, at least 1, got int"
    with running(python_version(tmp_path, DOUBLE).write(), ready=False, listen={"fd": 0}) as replica:
        assert replica.wait_end() == 2
        assert "listen" in replica.logged()


def test_thread_pools_are_sized_before_numpy_is_imported(tmp_path):
    source = "import os\nimport threadpoolctl\n" + DOUBLE.replace(
        "return",
        "return {'env': [os.environ['OMP_NUM_THREADS']], 'pools': "
        "[p['num_threads'] for p in threadpoolctl.threadpool_info()]}\n        return",
    ).replace("signature", "unused")
    with running(python_version(tmp_path, source, threads=2).write()) as replica:
        outputs = {output["name"]: output["data"] for output in replica.infer(x(1)).json()["outputs"]}
    assert outputs["env"] == ["2"]
    assert set(outputs["pools"]) <= {1, 2}


def test_a_unix_socket_of_its_own(tmp_path):
    folder = os.path.join("/tmp", f"pr-{os.getpid()}-{time.monotonic_ns()}")
    os.mkdir(folder, 0o700)
    path = os.path.join(folder, "own")
    config = python_version(tmp_path, DOUBLE).write()
    try:
        stale = socket.socket(socket.AF_UNIX)
        stale.bind(path)
        stale.close()
        with running(config, listen={"uds": path}) as replica:
            assert os.stat(path).st_mode & 0o777 == 0o600
            assert replica.infer(x(2)).json()["outputs"][0]["data"] == [4.0]
            with running(config, ready=False, listen={"uds": path}) as second:
                assert second.wait_end() == 2
                assert "another process listens there" in second.logged()
            assert replica.infer(x(2)).status == 200
            replica.terminate()
            assert replica.wait_end() == 0
        assert not os.path.exists(path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        os.rmdir(folder)


def test_a_port_of_its_own_and_one_inherited(tmp_path):
    config = python_version(tmp_path, DOUBLE).write()
    with running(config, ready=False, listen={"host": "127.0.0.1", "port": 0}) as replica:
        replica.wait_for(lambda: any(line["message"] == "listening" for line in replica.log_lines()))
        address = next(line["address"] for line in replica.log_lines() if line["message"] == "listening")
        replica.address = ("127.0.0.1", int(address.rpartition(":")[2]))
        replica.wait_ready()
        assert replica.infer(x(2)).status == 200
    with socket.create_server(("127.0.0.1", 0)) as listener:
        os.set_inheritable(listener.fileno(), True)
        # Replica passes only its own descriptors on, so this one is handed over by a shell that inherits everything.
        port = listener.getsockname()[1]
        document = json.loads(config.read_text()) | {"listen": {"fd": listener.fileno()}}
        config.write_text(json.dumps(document))
        import subprocess
        import sys

        process = subprocess.Popen(
            [sys.executable, "-m", "podium_runtime", "serve", str(config)],
            pass_fds=(listener.fileno(),),
            stderr=subprocess.DEVNULL,
        )
    try:
        until = time.monotonic() + 60
        status = 0
        while status != 200 and time.monotonic() < until and process.poll() is None:
            with contextlib.closing(Connection(("127.0.0.1", port))) as connection:
                status = connection.ask("GET", "/v2/health/ready").status
        assert status == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()


class Client(threading.Thread):
    """Asks again and again until the replica is gone; counts answers and what was lost."""

    def __init__(self, replica, keep_alive):
        super().__init__(daemon=True)
        self.replica, self.keep_alive = replica, keep_alive
        self.answered, self.lost, self.statuses = 0, [], set()
        self.start()

    def run(self):
        connection = None
        while True:
            try:
                if connection is None or connection.sock is None:
                    connection = Connection(self.replica.address)
                    connection.connect()
            except OSError:
                connection.close()
                return  # refused before anything was sent: nothing is lost
            try:
                answer = connection.ask("POST", "/v2/models/churn/infer", x(self.answered))
                assert answer.json()["outputs"][0]["data"] == [2.0 * self.answered]
            except Exception as error:
                self.lost.append(repr(error))
                return
            self.answered += 1
            self.statuses.add(answer.status)
            closing = answer.headers.get("connection") == "close"
            if closing or not self.keep_alive:
                connection.close()
            if closing and self.keep_alive:
                return


@pytest.mark.parametrize("keep_alive", [True, False])
def test_sigterm_under_load_loses_nothing(tmp_path, keep_alive):
    folder = os.path.join("/tmp", f"pr-{os.getpid()}-{time.monotonic_ns()}")
    os.mkdir(folder, 0o700)
    listen = None if keep_alive else {"uds": os.path.join(folder, "own")}
    try:
        with running(python_version(tmp_path, SLOW, batch={"maxSize": 4}).write(), listen=listen) as replica:
            clients = [Client(replica, keep_alive) for _ in range(16)]
            replica.wait_for(lambda: replica.metric("requests_total", code="200") > 50)
            replica.terminate()
            assert replica.wait_end() == 0
            # It ended because all was answered, not because the drain ran out.
            assert "requests unanswered" not in replica.logged()
            for client in clients:
                client.join(30)
            assert [client.lost for client in clients if client.lost] == []
            assert {status for client in clients for status in client.statuses} == {200}
            assert sum(client.answered for client in clients) > 50
    finally:
        os.rmdir(folder)


def test_readiness_goes_before_the_process_does(tmp_path):
    gate = tmp_path / "gate"
    waiting = DOUBLE.replace(
        "return",
        f"import os, time\n        while (inputs['x'] == 7).any() and not os.path.exists({str(gate)!r}): "
        "time.sleep(0.002)\n        return",
    )
    with running(python_version(tmp_path, waiting).write()) as replica:
        held, idle = Connection(replica.address), Connection(replica.address)
        with contextlib.closing(held), contextlib.closing(idle):
            assert idle.ask("GET", "/v2/health/ready").status == 200
            held.request("POST", "/v2/models/churn/infer", json.dumps(x(7)).encode())
            replica.terminate()
            replica.wait_for(lambda: "draining" in replica.logged())
            # A request on a connection that was open already is still answered, and told to go elsewhere.
            answer = idle.ask("GET", "/v2/health/ready")
            assert (answer.status, answer.json()["phase"]) == (503, "draining")
            assert answer.headers["connection"] == "close"
            gate.touch()
            last = held.getresponse()
            assert last.status == 200
            assert json.loads(last.read())["outputs"][0]["data"] == [14.0]
            assert replica.wait_end() == 0


def test_a_model_that_hangs_cannot_hold_the_drain(tmp_path):
    hanging = DOUBLE.replace("return", "import time\n        time.sleep(3600)\n        return")
    settings = {"drainSeconds": 0.3, "warmup": {"requests": 0}}
    with running(python_version(tmp_path, hanging, **settings).write()) as replica:
        with contextlib.closing(Connection(replica.address)) as connection:
            connection.request("POST", "/v2/models/churn/infer", json.dumps(x(1)).encode())
            replica.wait_for(lambda: replica.metric("queue_length") == 0)
            replica.terminate()
            answer = connection.getresponse()
            assert answer.status == 503
            assert "stopped before the model answered" in answer.read().decode()
        assert replica.wait_end() == 0
        assert "requests unanswered" in replica.logged()


def test_a_model_that_hangs_in_a_call_ends_the_process_with_5(tmp_path):
    hanging = DOUBLE.replace(
        "return", "import time\n        if (inputs['x'] == 7).any(): time.sleep(3600)\n        return"
    )
    with running(python_version(tmp_path, hanging, watchdogSeconds=0.5).write()) as replica:
        assert replica.infer(x(1)).status == 200
        with contextlib.closing(Connection(replica.address)) as connection:
            connection.request("POST", "/v2/models/churn/infer", json.dumps(x(7)).encode())
            answer = connection.getresponse()
            assert answer.status == 503
            assert "hangs" in answer.read().decode()
            # The moments that are left before the end: alive for nobody any more.
            with contextlib.suppress(OSError):
                assert connection.ask("GET", "/v2/health/live").status == 503
                assert connection.ask("GET", "/v2/health/ready").json()["phase"] == "hung"
                assert connection.ask("POST", "/v2/models/churn/infer", x(1)).status == 503
        assert replica.wait_end() == 5
        assert (
            replica.logged().splitlines()[-1].startswith("podium-runtime: the model was in one call for more")
        )


MORTAL = """
import ctypes, threading

class Model:
    def predict(self, inputs):
        if (inputs["x"] == 1).any():
            thread = threading.get_ident()
            # After this call, where no model is to blame: as an error in the loop of the thread itself would.
            raise_there = ctypes.pythonapi.PyThreadState_SetAsyncExc
            threading.Timer(0.05, lambda: self.die(raise_there, thread)).start()
        return inputs["x"]

    def die(self, raise_there, thread):
        raise_there(ctypes.c_ulong(thread), ctypes.py_object(SystemError))
        open(DIED, "w").close()
"""


def test_a_replica_whose_model_thread_dies_ends_with_5(tmp_path):
    died = tmp_path / "died"
    source = MORTAL.replace("DIED", repr(str(died)))
    with running(python_version(tmp_path, source, watchdogSeconds=0).write()) as replica:
        assert replica.infer(x(1)).status == 200
        replica.wait_for(lambda: died.exists())
        # The thread takes the next request, and with it notices.
        answer = replica.infer(x(2))
        assert (answer.status, "hangs" in answer.json()["error"]) == (503, True)
        assert replica.wait_end() == 5
        assert replica.logged().splitlines()[-1] == "podium-runtime: the model's thread has died: SystemError"


def test_a_model_that_panics_on_made_up_data_is_served(tmp_path):
    source = """
class Panic(BaseException): pass
class Model:
    signature = {"inputs": [{"name": "x", "datatype": "FP64", "shape": [-1]}], "outputs": []}
    def predict(self, inputs):
        if (inputs["x"] == 0).any(): raise Panic()
        return inputs["x"]
"""
    with running(python_version(tmp_path, source).write()) as replica:
        assert replica.infer(x(1)).status == 200
    declared = {"example": x(0)}
    assert "Panic" in ends(python_version(tmp_path, source, warmup=declared).write(), 4)


@pytest.mark.parametrize(("seconds", "watched"), [(0, False), (60, True)])
def test_without_a_watchdog_nobody_watches_the_model(tmp_path, seconds, watched):
    source = """
import threading
class Model:
    def predict(self, inputs):
        return [thread.name for thread in threading.enumerate()]
"""
    with running(python_version(tmp_path, source, watchdogSeconds=seconds).write()) as replica:
        names = replica.infer(x(1)).json()["outputs"][0]["data"]
        assert "model" in names
        assert ("watchdog" in names) is watched


def test_a_replica_that_was_frozen_in_a_call_is_not_taken_to_hang(tmp_path):
    gate, entered = tmp_path / "gate", tmp_path / "entered"
    held = DOUBLE.replace(
        "return",
        f"import os, time\n        if (inputs['x'] == 7).any(): open({str(entered)!r}, 'w').close()\n"
        f"        while (inputs['x'] == 7).any() and not os.path.exists({str(gate)!r}): time.sleep(0.002)\n"
        "        return",
    )
    limit = 2.0
    with (
        running(python_version(tmp_path, held, watchdogSeconds=limit).write()) as replica,
        contextlib.closing(Connection(replica.address)) as connection,
    ):
        connection.request("POST", "/v2/models/churn/infer", json.dumps(x(7)).encode())
        replica.wait_for(lambda: entered.exists())
        replica.process.send_signal(signal.SIGSTOP)
        # Nothing happens in this time, and nothing can: it is the time itself that is tested.
        threading.Event().wait(limit + 0.5)
        replica.process.send_signal(signal.SIGCONT)
        # By now it has seen how late it is, and is alive.
        assert [replica.ask("GET", "/v2/health/live").status for _ in range(3)] == [200] * 3
        gate.touch()
        assert connection.getresponse().status == 200


def test_inspect_prints_one_line(tmp_path):
    code, document, _ = inspect(python_version(tmp_path, "print('hello')\n" + DOUBLE).write())
    assert code == 0
    assert document["signature"]["inputs"] == [{"name": "x", "datatype": "FP64", "shape": [-1]}]
    assert set(document["framework"]) == {"python", "numpy"}


def test_inspect_tells_what_is_wrong(tmp_path):
    code, document, _ = inspect(python_version(tmp_path, "import a_module_that_is_missing").write())
    assert code == 1
    assert document["error"]["type"] == "ModuleNotFoundError"
    assert "a_module_that_is_missing" in document["error"]["message"]
    assert "mymodel.py" in document["error"]["traceback"]

    config = python_version(tmp_path, DOUBLE).write()
    (tmp_path / "model" / "mymodel.py").write_text("")
    code, document, _ = inspect(config)
    assert (code, document["error"]["type"]) == (1, "DigestMismatch")

    code, document, _ = inspect(python_version(tmp_path, DOUBLE, nonsense=1).write())
    assert (code, document["error"]["type"]) == (2, "ConfigInvalid")
    assert "nonsense" in document["error"]["message"]


def test_help_teaches(capsys):
    from podium_runtime.__main__ import main

    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for word in ("serve", "inspect", "manifestDigest", "exit codes"):
        assert word in text
