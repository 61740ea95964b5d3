#!/usr/bin/env python3
"""Fills the table of the side-by-side run: every line with its goal, the figure, its noise. See README.md.

  python3 benches/peers/measure.py --bench ../shared/bench --out table.md --json all.json
"""
import argparse
import base64
import contextlib
import dataclasses
import json
import os
import platform
import re
import resource
import shlex
import shutil
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


def arguments() -> argparse.Namespace:
    """Before the harness is imported, because one of them says where it is."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--bench", type=Path, default=Path("../shared/bench"), help="folder of the harness, run.py")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--secs", type=int, default=4, help="of one load in one round")
    p.add_argument("--only", type=lambda s: s.split(","), help="these lines only, comma-separated")
    p.add_argument("--quick", action="store_true", help="2 rounds of 2 s: to see that everything runs")
    p.add_argument("--nice", type=int, default=0, help="e.g. -10 on a machine shared with builds")
    p.add_argument("--retries", type=int, default=0, help="repeat a disturbed load up to so many times")
    p.add_argument("--out", type=Path, help="the table, beside standard output")
    p.add_argument("--json", type=Path, help="every single measurement")
    a = p.parse_args()
    if a.quick:
        a.rounds, a.secs = 2, 2
    return a


A = arguments()
sys.path.insert(0, str(A.bench.resolve()))
try:
    import icount
    import run
except ImportError as e:
    sys.exit(f"{A.bench} is not the folder of the harness (--bench): {e}")

Measured = dict[str, Any]
RUN: Path = run.RUN
TOKENS = 1000
CONNECTIONS = 2000
WAITING = 10_000

run.SCENARIOS.update({
    "large10m": dict(off="plain", body=10_000_000, reply=1024, conns=8),
    "jwt": dict(off="plain", body=200, reply=200, conns=64, unchecked=True, scripts=True),
    "http2": dict(off="plain", body=200, reply=200, unchecked=True),
    # nothing is answered while the queue is looked at
    "queue": dict(off="plain", body=200, reply=200, unchecked=True, stub=["--service-us", "600000000"]),
})


@dataclasses.dataclass
class Row:
    """One line of the table; `met` is None where a figure alone cannot tell."""
    line: str
    goal: str
    measured: str
    span: str = "–"
    disturbed: float | None = None
    met: bool | None = None
    why: str = ""

    def cells(self) -> list[str]:
        met = {True: "yes", False: "**no**", None: "–"}[self.met] + (f": {self.why}" if self.why else "")
        quiet = "–" if self.disturbed is None else f"{self.disturbed:.0%}"
        return [self.line, self.goal, self.measured, self.span, quiet, met]


RAW: dict[str, Any] = {}


def say(text: str) -> None:
    """Progress goes to standard error, so that standard output is the table alone."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


class Peers(run.Bench):
    """The harness's bench, with scripts of an entry's own and a watch over the whole machine."""

    def check(self, name: str) -> None:
        """The harness asks in HTTP/1.1 and without tokens; where that cannot work, errors of the load tell."""
        if not self.s.get("unchecked"):
            super().check(name)

    def wrk(self, name: str, secs: int, conns: int) -> Measured:
        """The script of a scenario is named after it; where entries differ in it, after the entry."""
        if not self.s.get("scripts"):
            return super().wrk(name, secs, conns)
        scenario, self.a.scenario = self.a.scenario, name
        try:
            return super().wrk(name, secs, conns)
        finally:
            self.a.scenario = scenario

    def h2load(self, name: str, secs: int) -> Measured:
        """Few connections with many streams each, as HTTP/2 clients do."""
        host, port = self.target(name)
        cmd = ["h2load", "-t1", "-c8", "-m16", f"-D{secs}", "-d", RUN / f"{self.a.scenario}.body",
               "-H", "content-type: application/json", f"http://{host}:{port}{self.path(name)}"]
        text = self.load(cmd, secs + 20)
        good = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", text)
        lost = re.search(r"(\d+) failed, (\d+) errored, (\d+) timeout", text)
        if not good or not lost:
            raise RuntimeError(f"h2load said {text[-300:]!r}")
        n, *bad = map(int, good.groups())
        return dict(n=n, rps=n / secs, errors=sum(bad) + int(lost[1]))

    def measure(self, name: str, load: Callable[[], Measured]) -> Measured:
        """Adds how busy the whole machine was: a load side without room explains a low rate."""
        m0 = run.machine()
        r = super().measure(name, load)
        m1 = run.machine()
        r["machine"] = (m1[0] - m0[0]) / (m1[2] - m0[2]) / (os.cpu_count() or 1)
        return r

    def usage(self, name: str) -> float:
        """PSS in MB."""
        return run.Usage(self.procs[name]).pss


@contextlib.contextmanager
def bench(scenario: str, names: list[str], *more: str) -> Iterator[Peers]:
    """The stub and these proxies, started, and ended whatever happens."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.2", 9000))
        except OSError:
            raise RuntimeError("127.0.0.2:9000 is taken: another run of the harness?") from None
    o = run.options(["--proxies", ",".join(names), "--scenario", scenario, "--rounds", str(A.rounds), "--secs", str(A.secs),
                     "--nice", str(A.nice), "--retries", str(A.retries), "--entries", str(HERE / "peers.toml"), *more])
    b = Peers(o)
    try:
        b.start()
        yield b
    finally:
        b.stop()
        for log in RUN.glob("scoregate*.log"):  # gigabytes after a while
            log.unlink()


def alternate(line: str, names: list[str], load: Callable[[str], Measured], unit: str = "us") -> dict[str, list[Measured]]:
    """A B C, then C B A, and so on: who runs after whom must not decide."""
    out: dict[str, list[Measured]] = {n: [] for n in names}
    for r in range(A.rounds):
        for name in names if r % 2 == 0 else names[::-1]:
            m = load(name)
            out[name].append(m)
            say(f"{line}: round {r + 1} of {A.rounds}, {name}: {m['rps']:.0f}/s, {unit} {m[unit]:.1f}, errors {m['errors']:.0f}")
    RAW.setdefault(line, {}).update({f"{line} {unit}": out})
    return out


def disturbed(out: dict[str, list[Measured]], names: list[str]) -> float:
    return max(m["foreign"] + m["steal"] for n in names for m in out[n])


def failures(rows: list[Measured]) -> str:
    """Cheap answers that are wrong are no answers."""
    n = sum(m["errors"] for m in rows)
    return f"{n:.0f} errors" if n else ""


def ratio(line: str, out: dict[str, list[Measured]], ours: str, peer: str, goal: float, key: str = "us", what: str = "CPU") -> Row:
    """Median of same-round pairs, so that a slow minute hits both sides."""
    pairs = [x[key] / y[key] for x, y in zip(out[ours], out[peer]) if y[key]]
    mid, bad = statistics.median(pairs), failures(out[ours])
    figures = " / ".join(f"{run.med(out[n], key):.1f}" for n in (ours, peer))
    per = "us/event" if line == "stream" else "us"
    return Row(line, f"{what} × {peer} ≤ {goal:.2f}", f"{mid:.3f} ({figures} {per})", f"{min(pairs):.3f}..{max(pairs):.3f}",
               disturbed(out, [ours, peer]), mid <= goal and not bad, bad)


def added(line: str, out: dict[str, list[Measured]], ours: str, key: str, goal: str, limit: float) -> Row:
    """Latency beyond that of the stub asked directly in the same round, in milliseconds."""
    pairs = [(x[key] - y[key]) / 1e3 for x, y in zip(out[ours], out["direct"])]
    mid, bad = statistics.median(pairs), failures(out[ours])
    figures = " − ".join(f"{run.med(out[n], key) / 1e3:.3f}" for n in (ours, "direct"))
    return Row(line, goal, f"{mid:.3f} ms ({figures})", f"{min(pairs):.3f}..{max(pairs):.3f}", disturbed(out, [ours, "direct"]),
               mid <= limit and not bad, bad)


def closed(line: str, scenario: str, ours: str, peers: dict[str, float], *more: str) -> list[Row]:
    """A closed loop through all; CPU of a request against each peer's."""
    names = [*peers, ours]
    with bench(scenario, names, *more) as b:
        for n in names:
            b.wrk(n, 1, 32)  # warm up
        out = alternate(line, names, b.closed)
    return [ratio(line, out, ours, p, goal) for p, goal in peers.items()]


def small() -> list[Row]:
    return closed("small", "small", "scoregate-open", {"nginx": 1.0, "haproxy": 0.9})


def auth() -> list[Row]:
    return closed("auth", "auth", "scoregate", {"nginx": 1.0, "haproxy": 0.9})


def by_thread() -> dict[str, int]:
    """Of callgrind's last run: which thread's, since only the worker's are the same each time."""
    out: dict[str, int] = {}
    for f in RUN.glob("icount.*"):
        thread = f.name.rpartition("-")[2] if "-" in f.name else "all"
        out[thread] = out.get(thread, 0) + icount.instructions(f.read_text(errors="replace"))
    return out


def instructions() -> list[Row]:
    """User-space instructions hardly depend on the neighbours; two runs take the start out (icount.py)."""
    a = argparse.Namespace(scenario="auth", entries=[str(HERE / "peers.toml")], conns=1)
    n, repeats = (500, 2) if A.quick else (3000, 3)
    found: dict[str, list[float]] = {"scoregate": [], "nginx": [], "haproxy": []}
    threads: list[dict[str, float]] = []
    for _ in range(repeats):  # how often a worker sleeps between two requests, and work by the clock, make them differ
        for name, each in found.items():
            wrap = f"valgrind --tool=callgrind --separate-threads=yes --callgrind-out-file={RUN}/icount.%p"
            low, few = icount.once(a, name, wrap, n, icount.instructions), by_thread()
            high, many = icount.once(a, name, wrap, 3 * n, icount.instructions), by_thread()
            each.append((high - low) / (2 * n))
            split = {t: (many[t] - few.get(t, 0)) / (2 * n) for t in sorted(many)}
            threads += [split] if name == "scoregate" else []
            say(f"instructions: {name} {each[-1]:.0f} a request; threads " + ", ".join(f"{t}: {x:.0f}" for t, x in split.items()))
    RAW["instructions"] = dict(found, threads=threads)
    ours, *others = (f"{name} {statistics.median(each):.0f}" for name, each in found.items())
    worker = statistics.median(max(t.values()) for t in threads)
    mid = statistics.median(found["scoregate"])
    return [Row("instructions", "auth: user instructions a request, all threads ≤ 30000",
                f"{ours}, of it the busiest thread {worker:.0f} ({', '.join(others)})",
                f"{min(found['scoregate']):.0f}..{max(found['scoregate']):.0f}", met=0 < mid <= 30_000)]


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def tokens() -> list[str]:
    """Signed with the openssl command, because the standard library has no RSA."""
    key, now = RUN / "jwt.key", int(time.time())
    subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
    subprocess.run(["openssl", "rsa", "-in", key, "-pubout", "-out", RUN / "jwt.pub"], check=True, capture_output=True)
    head = b64(b'{"alg":"RS256","typ":"JWT","kid":"bench"}')

    def one(i: int) -> str:
        claims = dict(iss="https://issuer.example", aud="scoregate-bench", sub=f"client-{i}", iat=now, exp=now + 86400)
        text = f"{head}.{b64(json.dumps(claims).encode())}"
        signed = subprocess.run(["openssl", "dgst", "-sha256", "-sign", key], input=text.encode(), check=True, capture_output=True)
        return f"{text}.{b64(signed.stdout)}"

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(one, range(TOKENS)))


def rotation(name: str, secrets: list[str]) -> None:
    """A wrk script that sends one secret after the other; requests are made before the load begins."""
    (RUN / f"{name}.secrets").write_text("".join(s + "\n" for s in secrets))
    (RUN / f"{name}.lua").write_text(f"""
local f = io.open("{RUN}/jwt.body"); local body = f:read("a"); f:close()
local requests, i = {{}}, 0
function init(args)
  for s in io.lines("{RUN}/{name}.secrets") do
    local h = {{["Content-Type"] = "application/json", ["Authorization"] = "Bearer " .. s}}
    requests[#requests + 1] = wrk.format("POST", nil, h, body)
  end
end
function request() i = i % #requests + 1; return requests[i] end
""")


def jwt() -> list[Row]:
    """Verifying once and remembering should cost as little as a key."""
    say(f"jwt: signing {TOKENS} tokens")
    ours, peer = "scoregate-jwt", "scoregate-jwt-keys"
    rotation(ours, tokens())
    rotation(peer, [run.KEYS[50 + i % 2] for i in range(TOKENS)])
    with bench("jwt", [peer, ours]) as b:
        for n in (peer, ours):
            b.wrk(n, 2, 64)
        out = alternate("jwt", [peer, ours], b.closed)
    row = ratio("jwt", out, ours, peer, 1.05)
    row.goal = f"{TOKENS} RS256 tokens: CPU × API keys ≤ 1.05"
    row.why = row.why or failures(out[peer])
    row.met = row.met and not row.why
    return [row]


def maxconn() -> list[Row]:
    """CPU in the closed loop, latency with random arrivals at 80 % of what four slots can do."""
    names, ours = ["haproxy", "scoregate-limited"], "scoregate-limited"
    with bench("maxconn", names) as b:
        for n in names:
            b.pace(n, 0, 1, 32)
        out = alternate("maxconn", names, b.closed)
        late = alternate("maxconn", names, lambda n: b.open(n, b.s["rate"]), "p99")
    peaks = [x[1] for m in out[ours] + late[ours] for x in m["stub"]]
    rows = [ratio("maxconn", out, ours, "haproxy", 1.0)]
    rows += [ratio("maxconn", late, ours, "haproxy", 1.0, k, f"1,600/s: {k}") for k in ("p50", "p99")]
    return rows + [Row("maxconn", "requests at once at one replica = 1", str(max(peaks)), met=max(peaks) == 1)]


def large() -> list[Row]:
    return closed("large", "large", "scoregate-open", {"nginx": 0.95})


def large10m() -> list[Row]:
    """Bodies of 10 MB must flow through, not pile up."""
    names, ours = ["nginx-10m", "scoregate-open"], "scoregate-open"
    with bench("large10m", names) as b:
        for n in names:
            b.ask(*b.target(n), b"POST " + b.path(n).encode(), b"{}")
        before = {n: b.usage(n) for n in names}
        out = alternate("large10m", names, b.closed)
        time.sleep(2)
        after = {n: b.usage(n) for n in names}
    RAW["large10m"].update(before=before, after=after)
    row = ratio("large10m", out, ours, "nginx-10m", 0.95)
    memory = ", ".join(f"{n} {before[n]:.1f} → {max(m['pss'] for m in out[n]):.1f} → {after[n]:.1f} MB" for n in names[::-1])
    return [row, Row("large10m", "PSS before → highest after a load → 2 s after all", memory)]


def stream() -> list[Row]:
    names, ours = ["direct", "nginx", "scoregate-open"], "scoregate-open"
    with bench("stream", names) as b:
        for n in names:
            b.pace(n, 0, 1, 32)
        out = alternate("stream", names, b.closed)
        late = alternate("stream", names, lambda n: b.open(n, b.s["rate"]), "p99")
    return [ratio("stream", out, ours, "nginx", 0.9),
            added("stream", late, ours, "p99", "500 streams/s: lateness p99 − direct ≤ 1 ms", 1.0)]


def tls() -> list[Row]:
    return closed("tls", "tls", "scoregate-tls", {"nginx": 1.0})


def tlsconn() -> list[Row]:
    return closed("tlsconn", "tlsconn", "scoregate-tls", {"nginx": 1.0})


def conn() -> list[Row]:
    return closed("conn", "conn", "scoregate-open", {"nginx": 1.0})


def manyconn() -> list[Row]:
    return closed("manyconn", "manyconn", "scoregate-open", {"nginx": 1.0})


def http2() -> list[Row]:
    if not shutil.which("h2load"):
        raise RuntimeError("h2load is missing (Debian: nghttp2-client)")
    names, ours = ["nginx-http2", "scoregate-open"], "scoregate-open"
    with bench("http2", names) as b:
        for n in names:
            b.h2load(n, 1)
        out = alternate("http2", names, lambda n: b.measure(n, lambda: b.h2load(n, A.secs)))
    return [ratio("http2", out, ours, "nginx-http2", 0.9)]


def latency() -> list[Row]:
    """pace tells percentiles and no mean; the median stands for it."""
    names, ours = ["direct", "scoregate"], "scoregate"
    with bench("auth", names) as b:
        for n in names:
            b.wrk(n, 1, 32)
        out = alternate("latency", names, lambda n: b.open(n, 5000), "p99")
    return [added("latency", out, ours, "p50", "5,000/s, keys: added p50 ≤ 0.15 ms", 0.15),
            added("latency", out, ours, "p99", "5,000/s, keys: added p99 ≤ 1 ms", 1.0)]


def answer(c: socket.socket) -> bytes:
    """One whole answer with a content-length."""
    out = b""
    while True:
        d = c.recv(65536)
        if not d:
            raise RuntimeError(f"closed after {out[:100]!r}")
        out += d
        end = out.find(b"\r\n\r\n") + 4
        m = re.search(rb"(?i)\r\ncontent-length: *(\d+)", out[:end])
        if end > 4 and m and len(out) >= end + int(m[1]):
            return out


def request(b: Peers, name: str) -> bytes:
    body = (RUN / f"{b.a.scenario}.body").read_bytes()
    hs = "".join(f"{k}: {v}\r\n" for k, v in b.s.get("headers", {}).items())
    return (f"POST {b.path(name)} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n{hs}"
            f"Content-Length: {len(body)}\r\n\r\n").encode() + body


def connected(b: Peers, name: str, n: int) -> list[socket.socket]:
    """Connections that have each made one good request, and stay."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    out, what = [], request(b, name)
    for _ in range(n):
        c = socket.create_connection(b.target(name), 10)
        if b.s.get("tls"):
            c = context.wrap_socket(c)
        out.append(c)
        c.sendall(what)
        if not (a := answer(c)).startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"{name}: {a[:100]!r}")
    return out


def idle_connections(scenario: str, name: str) -> tuple[float, float]:
    """PSS in MB while nothing happens, and bytes for each idle connection."""
    with bench(scenario, [name]) as b:
        time.sleep(3)
        idle = b.usage(name)
        RAW.setdefault("memory", {})[f"{name} idle"] = split(b, name)
        for c in connected(b, name, 20):  # what the first request alone brings is not a connection's
            c.close()
        time.sleep(1)
        before = b.usage(name)
        held = connected(b, name, CONNECTIONS)
        time.sleep(3)
        each = (b.usage(name) - before) * 1024 * 1024 / CONNECTIONS
        for c in held:
            c.close()
    return idle, each


def split(b: Peers, name: str) -> str:
    """What of the memory is the program's own file, which the system can drop and read again."""
    text = Path(f"/proc/{b.procs[name].pid}/smaps_rollup").read_text()
    return ", ".join(f"{k} {int(re.search(rf'Pss_{k}: +([0-9]+)', text)[1]) / 1024:.1f}" for k in ("Anon", "File"))


def memory() -> list[Row]:
    """A fresh process each time, because memory once given is seldom given back."""
    out: dict[str, list[float]] = {"idle": [], "clear": [], "tls": []}
    for r in range(min(A.rounds, 3)):
        idle, clear = idle_connections("auth", "scoregate")
        _, tls_each = idle_connections("tls", "scoregate-tls")
        for k, v in (("idle", idle), ("clear", clear), ("tls", tls_each)):
            out[k].append(v)
        say(f"memory: round {r + 1}: idle {idle:.1f} MB, a clear connection {clear:.0f} B, a TLS one {tls_each:.0f} B")
    RAW["memory"].update(out)

    def row(key: str, goal: str, unit: str, f: str, limit: float) -> Row:
        mid = statistics.median(out[key])
        return Row("memory", goal, f"{mid:{f}} {unit}", f"{min(out[key]):{f}}..{max(out[key]):{f}}", met=mid <= limit)

    return [row("idle", "idle: PSS ≤ 15 MB", f"MB ({RAW['memory']['scoregate idle']})", ".1f", 15),
            row("clear", "an idle clear connection ≤ 8 KiB", "B", ".0f", 8 * 1024),
            row("tls", "an idle TLS connection ≤ 20 KiB", "B", ".0f", 20 * 1024)]


def gauge(port: int, name: str) -> float:
    """Not with the harness's `ask`: the admin listener refuses its Host header."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as r:
        text = r.read().decode()
    return sum(float(x) for x in re.findall(rf"^{name}(?:\{{.*\}})? ([\d.e+]+)", text, re.M))


def waiting(b: Peers, name: str) -> list[socket.socket]:
    """One more than shall wait, for the slot; returns when the router says that they do."""
    out, what, admin = [], request(b, name), b.entries[name]["port"] + 5
    for i in range(WAITING + 1):
        c = socket.create_connection(b.target(name), 10)
        c.sendall(what)
        out.append(c)
        if i % 1000 == 999:
            say(f"queue: {i + 1} of {WAITING + 1} connections")
    end = time.monotonic() + 30
    while (n := gauge(admin, "scoregate_queue_length")) != WAITING:
        if time.monotonic() > end:
            raise RuntimeError(f"{n:.0f} wait and not {WAITING}")
        time.sleep(0.2)
    return out


def queue() -> list[Row]:
    name = "scoregate-queue"
    with bench("queue", [name]) as b:
        time.sleep(3)
        before = b.usage(name)
        held = waiting(b, name)
        full = b.usage(name)
        for c in held:
            c.close()
        time.sleep(3)
        after, left = b.usage(name), gauge(b.entries[name]["port"] + 5, "scoregate_queue_length")
    RAW["queue"] = dict(before=before, full=full, after=after, left=left)
    return [Row("queue", f"{WAITING:,} requests waiting: PSS grows ≤ 50 MB", f"{full - before:.1f} MB ({before:.1f} → {full:.1f}; "
                f"3 s after all have gone {after:.1f} MB, {left:.0f} waiting)", met=full - before <= 50 and left == 0)]


def many_endpoints(port: int, endpoints: int = 100, deployments: int = 5) -> str:
    """A large configuration: every endpoint with keys and several deployments."""
    out = [f"access_log: file:{RUN}/scoregate-start.log", f"listen: {{address: 127.0.0.1:{port}, workers: 1}}",
           f"admin: {{address: 127.0.0.1:{port + 5}}}", "endpoints:"]
    for i in range(endpoints):
        out += [f"  - name: endpoint-{i}", "    default: dep-0", f"    keys: {{primary: primary-of-endpoint-{i:04}}}", "    deployments:"]
        for k in range(deployments):
            out += [f"      - name: dep-{k}", f"        replicas: [http://{run.UPSTREAMS[(i + k) % 4]}]"]
    return "\n".join(out) + "\n"


def first_answer(port: int, path: str, proc: subprocess.Popen[bytes], limit: float = 10) -> float:
    """When the first 200 came."""
    ask = f"GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n".encode()
    end = time.monotonic() + limit
    while (now := time.monotonic()) < end and proc.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as c:
                c.sendall(ask)
                if c.recv(4096).startswith(b"HTTP/1.1 200"):
                    return time.monotonic()
        except OSError:
            pass
        time.sleep(max(0, 0.0003 - (time.monotonic() - now)))
    raise RuntimeError(f"no 200 from {path} in {limit} s (exit code {proc.poll()}): see {RUN}/start.log")


def start() -> list[Row]:
    port, conf = 18900, RUN / "scoregate-start.yaml"
    took: dict[str, list[float]] = {"/healthz": [], "/readyz": []}
    conf.write_text(many_endpoints(port))
    binary = os.environ.get("SCOREGATE_BIN", "target/release/scoregate")
    with bench("small", ["direct"]), open(RUN / "start.log", "ab") as log:
        m0, o0 = run.machine(), run.own_cpu()
        for i in range(10):
            t0 = time.monotonic()
            p = subprocess.Popen([binary, "serve", str(conf)], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
            try:
                for path, times in took.items():
                    times.append((first_answer(port, path, p) - t0) * 1e3)
            finally:
                run.stop(p)
            say(f"start: {i + 1} of 10: " + ", ".join(f"{path} {times[-1]:.1f} ms" for path, times in took.items()))
        m1, o1 = run.machine(), run.own_cpu()
    others = max(0.0, m1[0] - m0[0] - (o1 - o0) + m1[1] - m0[1]) / (m1[2] - m0[2])
    RAW["start"] = took
    alive, ready = (statistics.median(times) for times in took.values())
    return [Row("start", "100 endpoints × 5 deployments: exec to /readyz ≤ 50 ms", f"{ready:.1f} ms (/healthz {alive:.1f} ms)",
                f"{min(took['/readyz']):.1f}..{max(took['/readyz']):.1f}", others, ready <= 50)]


def workers() -> list[Row]:
    """Two workers can only show twice the rate if load and stub have CPUs of their own."""
    names = ["scoregate-w1", "scoregate-w2"]
    with bench("small", names, "--unpinned") as b:
        for n in names:
            b.wrk(n, 1, 64)
        out = alternate("workers", names, b.closed)
    one, two = out["scoregate-w1"], out["scoregate-w2"]
    faster = [y["rps"] / x["rps"] for x, y in zip(one, two)]
    dearer = [y["us"] / x["us"] for x, y in zip(one, two)]
    mid, full, bad = statistics.median(faster), run.med(two, "machine"), failures(one + two)
    cramped = mid < 1.8 and full > 0.9
    text = (f"{mid:.2f} ({run.med(two, 'rps'):.0f} / {run.med(one, 'rps'):.0f}; CPU a request × {statistics.median(dearer):.2f}; "
            f"share of a core {run.med(two, 'util'):.0%} / {run.med(one, 'util'):.0%}; machine {full:.0%} busy)")
    return [Row("workers", "RPS of 2 workers over 1 ≥ 1.8", text, f"{min(faster):.2f}..{max(faster):.2f}", disturbed(out, names),
                None if cramped and not bad else mid >= 1.8 and not bad, bad or ("the load side left no room" if cramped else ""))]


LINES: dict[str, Callable[[], list[Row]]] = {f.__name__: f for f in (
    small, auth, instructions, jwt, maxconn, large, large10m, stream, tls, tlsconn, conn, manyconn, http2, latency, memory, queue,
    start, workers)}


def said(*cmd: str) -> str:
    """First line that a program says about itself."""
    try:
        r = subprocess.run(cmd, capture_output=True, text=True, timeout=10)
        return next(iter((r.stdout + r.stderr).strip().splitlines()), "?")
    except OSError:
        return "missing"


def about() -> dict[str, str]:
    """What the figures depend on."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    tools = {"scoregate": (os.environ.get("SCOREGATE_BIN", "target/release/scoregate"), "--version"),
             "nginx": (os.environ.get("NGINX_BIN", "nginx"), "-v"), "haproxy": (os.environ.get("HAPROXY_BIN", "haproxy"), "-v"),
             "wrk": ("wrk", "-v"), "h2load": ("h2load", "--version"), "valgrind": ("valgrind", "--version"),
             "openssl": ("openssl", "version")}
    return {"CPU": f"{model[1] if model else platform.processor()}, {os.cpu_count()} cores", "kernel": platform.release(),
            **{k: said(*v) for k, v in tools.items()}, "Python": platform.python_version(), "command": shlex.join(["python3", *sys.argv]),
            "rounds": f"{A.rounds} × {A.secs} s", "date": time.strftime("%Y-%m-%d %H:%M %Z")}


def table(rows: list[Row], facts: dict[str, str]) -> str:
    head = ["line", "goal", "measured", "min..max of the rounds", "disturbed", "met"]
    text = "\n".join("| " + " | ".join(c) + " |" for c in [head, ["---"] * len(head), *(r.cells() for r in rows)])
    return f"{text}\n\n" + "".join(f"- {k}: {v}\n" for k, v in facts.items())


def save(rows: list[Row], facts: dict[str, str]) -> None:
    """After every line, so that a run that is broken off leaves what it had."""
    if A.out:
        A.out.write_text(table(rows, facts))
    if A.json:
        A.json.write_text(json.dumps(dict(about=facts, rows=[dataclasses.asdict(r) for r in rows], measurements=RAW), indent=1))


def one(name: str, what: Callable[[], list[Row]]) -> list[Row]:
    """A line that cannot be measured says why, and the others go on."""
    try:
        return what()
    except (Exception, SystemExit) as e:  # the harness ends with sys.exit
        return [Row(name, "–", f"not measured: {type(e).__name__}: {str(e)[:300]}".replace("|", "/").replace("\n", " "), met=False)]


def main() -> None:
    unknown = set(A.only or []) - set(LINES)
    if unknown:
        sys.exit(f"no such line: {', '.join(sorted(unknown))}; there are {', '.join(LINES)}")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # ten thousand sockets, here and in the router
    os.environ.setdefault("SCOREGATE_PEERS", str(HERE))
    run.prepare()
    facts, rows, names = about(), [], A.only or list(LINES)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what was started is ended
    try:
        for i, name in enumerate(names):
            say(f"== line {i + 1} of {len(names)}: {name}")
            new = one(name, LINES[name])
            rows += new
            for r in new:
                say("   " + " | ".join(r.cells()))
            save(rows, facts)
    except KeyboardInterrupt:
        say("broken off; the table has the lines that were finished")
    print(table(rows, facts))


if __name__ == "__main__":
    main()
