"""What the live runs share: a router with real model processes, load, samples of its state, tables.

Standard library only. Everything listens on 127.0.0.1 and is ended with the run.
"""
import asyncio, contextlib, json, os, pathlib, signal, socket, subprocess, sys, tempfile, threading, time, urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = os.environ.get("SCOREGATE_BIN", str(ROOT / "target" / "release" / "scoregate"))
SCORE = "/api/v1/endpoint/demo/score"


def say(text):
    print(text, file=sys.stderr, flush=True)


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def get(url, timeout=5):
    with urllib.request.urlopen(url, timeout=timeout) as answer:
        return json.load(answer)


class Process:
    """A child that is ended with the block."""

    def __init__(self, *command, log=None):
        self.log = log or subprocess.DEVNULL
        self.child = subprocess.Popen([str(c) for c in command], stdout=self.log, stderr=subprocess.STDOUT)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(ProcessLookupError):
            self.child.send_signal(signal.SIGCONT)
            self.child.terminate()
        try:
            self.child.wait(20)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()


def model(port, *flags):
    return Process(BIN, "model", "--port", port, *flags)


def wait_for(what, condition, seconds=30):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError, KeyError, ValueError):
            if result := condition():
                return result
        time.sleep(0.05)
    raise SystemExit(f"not within {seconds} s: {what}")


class Router(Process):
    """scoregate in front of one deployment, `blue` of `demo`; `deployment` is YAML as JSON."""

    def __init__(self, deployment, workers=2, top=None):
        self.port, self.admin = free_ports(2)
        self.folder = tempfile.TemporaryDirectory()
        config = {
            "access_log": "off",
            "listen": {"address": f"127.0.0.1:{self.port}", "workers": workers},
            "admin": {"address": f"127.0.0.1:{self.admin}"},
            "endpoints": [{"name": "demo", "auth_mode": "none", "deployments": [{"name": "blue", **deployment}]}],
            **(top or {}),
        }
        self.config = pathlib.Path(self.folder.name) / "scoregate.yaml"
        self.config.write_text(json.dumps(config))
        self.output = open(pathlib.Path(self.folder.name) / "log", "w+")
        super().__init__(BIN, "serve", self.config, log=self.output)
        self.url = f"http://127.0.0.1:{self.port}{SCORE}"

    def state(self):
        state = get(f"http://127.0.0.1:{self.admin}/state")
        return state["endpoints"][0]["deployments"][0]

    def ready(self, replicas, seconds=60):
        def enough():
            if self.child.poll() is not None:
                self.output.seek(0)
                raise SystemExit(self.output.read())
            return self.state()["ready"] >= replicas
        wait_for(f"{replicas} ready replicas", enough, seconds)
        return self

    def __exit__(self, *end):
        super().__exit__(*end)
        self.folder.cleanup()


class Samples(threading.Thread):
    """The router's state every `pause` seconds, with the time of each look."""

    def __init__(self, router, pause=0.1):
        super().__init__(daemon=True)
        self.router, self.pause, self.rows, self.over = router, pause, [], threading.Event()

    def run(self):
        while not self.over.wait(self.pause):
            with contextlib.suppress(OSError):
                self.rows.append((time.monotonic(), self.router.state()))

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.join()


def load(url, rate, seconds, *flags):
    """One run of the open-loop generator; its report."""
    command = [BIN, "load", url, "--rate", rate, "--duration", f"{seconds}s", "--warm-up", "0s", "--output", "json", *flags]
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if not done.stdout:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout)


def table(title, columns, rows):
    print(f"\n### {title}\n\n| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |", flush=True)


class Client:
    """A client with one connection, which it keeps while the server does."""

    def __init__(self, port, headers=""):
        self.port, self.headers, self.wire = port, headers, None

    async def post(self, body=b'{"data": [[1]]}'):
        """Status and headers (lower case) of the answer to one scoring request."""
        if self.wire is None:
            self.wire = await asyncio.open_connection("127.0.0.1", self.port)
        reader, writer = self.wire
        head = f"POST {SCORE} HTTP/1.1\r\nhost: demo\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n{self.headers}\r\n"
        writer.write(head.encode() + body)
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        fields = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:])}
        await reader.readexactly(int(fields.get("content-length", 0)))
        return int(lines[0].split()[1]), fields

    def close(self):
        if self.wire is not None:
            self.wire[1].close()
        self.wire = None
