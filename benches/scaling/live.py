#!/usr/bin/env python3
"""Runs the router against real model processes and shows what admission and scaling make of it.

  python3 benches/scaling/live.py                 everything, about 40 minutes
  python3 benches/scaling/live.py step overload   some
  python3 benches/scaling/live.py --list
Needs `cargo build --release` (or SCOREGATE_BIN) and, for `wait`, haproxy. Markdown tables go to standard output, progress to
standard error.
"""
import argparse, asyncio, contextlib, json, math, os, random, shutil, signal, socket, statistics, sys, tempfile, time

from bench import BIN, Client, Process, Router, Samples, free_ports, get, load, model, say, table, wait_for

PROCESS = ["{scoregate}", "model", "--port", "{port}"]


def share(part, whole):
    return f"{100 * part / max(whole, 1):.2f} %"


def percentile(values, percent):
    values = sorted(values)
    return values[min(len(values) - 1, math.ceil(len(values) * percent / 100) - 1)] if values else float("nan")


def step():
    """A step from 5 to 50 requests/s: how fast, how many refused, how far beyond the need."""
    low, high, service, start, rows = 5, 50, 0.1, 3.0, []
    need = math.ceil(high * service / 0.7)
    for policy in ("azureml-strict", "azureml", "adaptive"):
        deployment = {
            "process": {"command": PROCESS + ["--service-time", str(service * 1000), "--startup-delay", str(int(start * 1000))]},
            "request_settings": {"max_queue_wait_ms": 500, "max_concurrent_requests_per_instance": 1},
            "readiness_probe": {"initial_delay": 1, "period": 1},
            "scale_settings": {"type": "target_utilization", "policy": policy, "min_instances": 1, "max_instances": 60},
        }
        with Router(deployment) as router, Samples(router.ready(1)) as samples:
            say(f"step, {policy}: {low}/s for 20 s, then {high}/s for 60 s")
            load(router.url, low, 20, "--poisson", "--seed", 1)
            began = time.monotonic()
            report = load(router.url, high, 60, "--poisson", "--seed", 2)
            after = [(at - began, state) for at, state in samples.rows if at >= began]
            enough = next((at for at, state in after if state["ready"] >= need), None)
            first = next((at for at, state in after if state["desired"] > after[0][1]["desired"]), None)
            peak = max(state["desired"] for _, state in after)
            requests = report["requests"]
            rows.append([policy, f"{first:.1f} s" if first else "never", f"{enough:.1f} s" if enough else "not in 60 s",
                         share(requests["failed"], requests["due"]), peak, f"{peak / need:.2f}",
                         f"{statistics.mean(s['ready'] for _, s in after):.1f}"])
    table(f"Step from {low} to {high} requests/s (service {service * 1000:.0f} ms, start {start:.0f} s, 1 slot, queue 500 ms; {need} replicas needed at 70 %)",
          ["policy", "first decision", "enough ready", "refused in 60 s", "most wanted", "of the need", "mean ready"], rows)


HAPROXY = """global
    maxconn 4000
    nbthread 2
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout queue {patience}
frontend in
    bind 127.0.0.1:{port}
    default_backend out
backend out
    balance leastconn
    option redispatch
{servers}
"""


def wait():
    """The wait of admitted requests at 70 % load, beside HAProxy with the same replicas."""
    if not shutil.which("haproxy"):
        say("wait: haproxy is not installed")
        return
    rows = []
    for replicas, flags, name in ((4, ["--service-time", "100"], "constant"),
                                  (8, ["--service-time", "100"], "constant"),
                                  (8, ["--service-time", "100", "--distribution", "lognormal", "--sigma", "1"], "log-normal")):
        rate = 0.7 * replicas / 0.1
        found = {"scoregate": [], "haproxy": []}
        for round_ in range(3):
            for router in ("scoregate", "haproxy") if round_ % 2 == 0 else ("haproxy", "scoregate"):
                say(f"wait, {replicas} replicas, {name}, round {round_ + 1}: {router}")
                found[router].append(waits(router, replicas, flags, rate, round_))
        for percent, index in (("p50", 0), ("p90", 1), ("p99", 2)):
            row = [f"{replicas}, {name}", percent]
            row += [f"{statistics.median(run[index] for run in found[r]):.1f}" for r in ("scoregate", "haproxy")]
            row.append(f"{statistics.median(a[index] / max(b[index], 0.1) for a, b in zip(found['scoregate'], found['haproxy'])):.2f}")
            rows.append(row)
    table("Latency beyond the service time at 70 % load, ms (median of 3 rounds; the ratio is that of the same round)",
          ["replicas, service", "", "scoregate", "HAProxy", "ratio"], rows)


@contextlib.contextmanager
def haproxy(ports, patience):
    """HAProxy in front of these models, one request at once each; its address for requests."""
    port = free_ports(1)[0]
    with tempfile.NamedTemporaryFile("w", suffix=".cfg") as config:
        servers = "".join(f"    server m{i} 127.0.0.1:{model} maxconn 1\n" for i, model in enumerate(ports))
        config.write(HAPROXY.format(port=port, servers=servers, patience=patience))
        config.flush()
        with Process("haproxy", "-f", config.name):
            wait_for("HAProxy", lambda: socket.create_connection(("127.0.0.1", port)).close() or True)
            yield f"http://127.0.0.1:{port}/score"


def waits(router, replicas, flags, rate, seed):
    ports = free_ports(replicas)
    models = [model(port, *flags, "--seed", index) for index, port in enumerate(ports)]
    try:
        for port in ports:
            wait_for("the model", lambda: get(f"http://127.0.0.1:{port}/stats"))
        if router == "scoregate":
            settings = {"max_queue_wait_ms": 500, "max_concurrent_requests_per_instance": 1}
            with Router({"replicas": [f"http://127.0.0.1:{port}" for port in ports], "request_settings": settings}) as gate:
                return wait_of(gate.ready(replicas).url, rate, seed, flags)
        with haproxy(ports, "500ms") as url:
            return wait_of(url, rate, seed, flags)
    finally:
        for child in models:
            child.__exit__()


def wait_of(url, rate, seed, flags):
    report = load(url, rate, 30, "--poisson", "--seed", seed)
    latency = report["latency_ms"]
    base = 100.0 if "lognormal" not in flags else 0.0
    return [latency[p] - base for p in ("p50", "p90", "p99")]


def overload():
    """Three and ten times what the replicas can do: goodput, and how fast the refusals are."""
    replicas, service, rows = 8, 0.02, []
    flags = ["--service-time", str(service * 1000)]
    for times in (1, 3, 10):
        deployment = {
            "process": {"command": PROCESS + flags}, "instance_count": replicas,
            "request_settings": {"max_queue_wait_ms": 500, "max_queue_length": 40, "max_concurrent_requests_per_instance": 1},
        }
        with Router(deployment) as router:
            router.ready(replicas)
            full = replicas / service
            rate = full * times * (0.95 if times == 1 else 1)
            say(f"overload: {rate:.0f} requests/s against {full:.0f}")
            report = load(router.url, rate, 15, "--max-in-flight", 4000)
            good = report["requests"]["succeeded"] / report["seconds"]
            refused = report["failed_latency_ms"] or {}
            rows.append([f"{times} x" if times > 1 else "0.95 x", f"{full:.0f}", f"{rate:.0f}", f"{good:.0f}", f"{good / min(full, rate):.3f}",
                         share(report["requests"]["failed"], report["requests"]["due"]),
                         f"{refused.get('p50', float('nan')):.2f}", f"{refused.get('p99', float('nan')):.2f}"])
    table(f"Overload ({replicas} replicas, service {service * 1000:.0f} ms, 1 slot, at most 40 in the queue)",
          ["offered", "capacity/s", "requests/s", "good/s", "goodput", "refused", "refusal p50 ms", "p99 ms"], rows)


def leavers():
    """Clients that leave after 100 ms against a queue of up to 2 s: how many slots are spent on them?"""
    rows = []
    for name, more, flags in (("nothing", {}, []), ("their deadline in a header", {}, ["--header", "x-request-deadline-ms: 100"]),
                              ("`queue_order: newest_first`", {"queue_order": "newest_first"}, [])):
        deployment = {
            "process": {"command": PROCESS + ["--service-time", "50"]}, "instance_count": 2,
            "request_settings": {"max_queue_wait_ms": 2000, "max_concurrent_requests_per_instance": 1, **more},
        }
        with Router(deployment) as router:
            router.ready(2)
            say(f"leavers: the router knows {name}")
            report = load(router.url, 120, 15, "--timeout", "100ms", "--max-in-flight", 4000, *flags)
            time.sleep(1)
            stats = [get(f"http://{replica['address']}/stats") for replica in router.state()["replicas"]]
        requests = report["requests"]
        rows.append([name, requests["due"], requests["succeeded"], f"{requests['succeeded'] / (40 * report['seconds']):.2f}",
                     sum(s["abandoned"] for s in stats)])
    table("Clients that leave after 100 ms (2 replicas, 50 ms, 120/s for 40/s, queue up to 2 s)",
          ["the router knows", "requests", "answered in time", "of capacity", "left while the model worked"], rows)


def comeback():
    """Of clients that obey Retry-After, how many are admitted on the first return?"""
    rows = []
    fixed = {"process": {"command": PROCESS + ["--service-time", "100"]}, "instance_count": 8}
    scaled = {
        "process": {"command": PROCESS + ["--service-time", "100", "--startup-delay", "3000"]},
        "readiness_probe": {"initial_delay": 1, "period": 1},
        "scale_settings": {"type": "target_utilization", "min_instances": 1, "max_instances": 60},
    }
    for name, deployment, rates in (("2 x for 10 s, 8 replicas", fixed, [(160, 10)]), ("step 2 to 80, start 3 s", scaled, [(2, 10), (80, 10)])):
        for kind in ("send an id", "keep their connection", "neither", "send an id, seconds only", "wait 1 s"):
            settings = {"max_queue_wait_ms": 500, "max_queue_length": 10, "max_concurrent_requests_per_instance": 1}
            with Router({**deployment, "request_settings": settings}) as router:
                router.ready(deployment.get("instance_count", 1))
                say(f"comeback, {name}: {kind}")
                found = asyncio.run(obedient(router.port, rates, kind))
            refused = [f for f in found if f["tries"] > 1]
            first = sum(f["tries"] == 2 and f["status"] == 200 for f in refused)
            served = [f for f in found if f["status"] == 200]
            rows.append([name, kind, len(found), len(refused), share(first, len(refused)) if refused else "–",
                         f"{sum(f['tries'] for f in found) / max(len(served), 1):.2f}", share(len(served), len(found))])
    table("Clients that come back when they are told to (at most 5 tries)",
          ["load", "clients", "requests", "refused at first", "admitted on the first return", "tries for each success", "served in the end"], rows)


async def obedient(port, rates, kind):
    draw = random.Random(7)

    async def one(number):
        client = Client(port, f"x-ms-client-request-id: {number:08}-of-the-load\r\n" if "id" in kind else "")
        for tries in range(1, 6):
            status, headers = await client.post()
            if status == 200:
                break
            if kind == "neither":
                client.close()
            wait = float(headers["retry-after"] if "seconds" in kind else float(headers["retry-after-ms"]) / 1000)
            await asyncio.sleep(1 if kind == "wait 1 s" else wait)
        client.close()
        return {"tries": tries, "status": status}

    tasks = []
    for rate, seconds in rates:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            tasks.append(asyncio.create_task(one(len(tasks))))
            await asyncio.sleep(draw.expovariate(rate))
    return await asyncio.gather(*tasks)


def misbehaving():
    """One of four replicas is 10 x slower, failing, stopped or killed."""
    rows = []
    for fault in ("none", "slow", "fails", "breaks", "stopped", "killed"):
        ports = free_ports(4)
        flags = {"slow": ["--service-time", "200"], "fails": ["--service-time", "2", "--failure-rate", "1"]}
        models = [model(port, *(flags.get(fault, ["--service-time", "20"]) if i == 0 else ["--service-time", "20"]))
                  for i, port in enumerate(ports)]
        try:
            for port in ports:
                wait_for("the model", lambda: get(f"http://127.0.0.1:{port}/stats"))
            settings = {"max_queue_wait_ms": 2000, "max_concurrent_requests_per_instance": 1, "request_timeout_ms": 2000}
            first = ports[0]
            front = None
            if fault == "breaks":
                first = free_ports(1)[0]
                front = asyncio_breaker(first, ports[0])
            urls = [f"http://127.0.0.1:{port}" for port in (first, *ports[1:])]
            with Router({"replicas": urls, "request_settings": settings}) as router:
                router.ready(4)
                say(f"misbehaving: {fault}")
                load(router.url, 80, 5)
                if fault == "stopped":
                    models[0].child.send_signal(signal.SIGSTOP)
                if fault == "killed":
                    models[0].child.kill()
                before = get(f"http://127.0.0.1:{ports[0]}/stats") if fault not in ("stopped", "killed") else {"served": 0}
                report = load(router.url, 80, 60, "--poisson", "--seed", 3)
                after = get(f"http://127.0.0.1:{ports[0]}/stats") if fault not in ("stopped", "killed") else {"served": 0}
                if fault == "stopped":
                    models[0].child.send_signal(signal.SIGCONT)
                requests = report["requests"]
                rows.append([fault, share(requests["succeeded"], requests["due"]),
                             share(after["served"] - before["served"], requests["due"]) if fault in ("none", "slow", "fails") else "–",
                             f"{report['latency_ms']['p50']:.0f}", f"{report['latency_ms']['p99']:.0f}",
                             ", ".join(f"{f['code']}: {f['count']}" for f in report["failures"]) or "–"])
            if front:
                front.terminate()
        finally:
            for child in models:
                child.__exit__()
    table("One of four replicas misbehaves (service 20 ms, 1 slot, 80 requests/s, 60 s)",
          ["fault", "good answers", "traffic to it", "p50 ms", "p99 ms", "failures"], rows)


def asyncio_breaker(port, model_port):
    """A server that answers probes and breaks every scoring request off after its head."""
    import multiprocessing

    async def serve():
        async def one(reader, writer):
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"GET / "):
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                await writer.drain()
            writer.close()
        server = await asyncio.start_server(one, "127.0.0.1", port)
        await server.serve_forever()

    child = multiprocessing.Process(target=lambda: asyncio.run(serve()), daemon=True)
    child.start()
    return child


def handover():
    """One slot, 5 ms of service, always somebody waiting: how much of the time do the replicas work?"""
    rows = []
    for replicas, name in ((1, "a client that sends one after the other"), (1, "scoregate"), (1, "haproxy"), (4, "scoregate"), (4, "haproxy")):
        ports = free_ports(replicas)
        models = [model(port, "--service-time", "5") for port in ports]
        try:
            for port in ports:
                wait_for("the model", lambda: get(f"http://127.0.0.1:{port}/stats"))
            say(f"handover: {replicas} replicas, {name}")
            if name == "scoregate":
                settings = {"max_queue_wait_ms": 5000, "max_concurrent_requests_per_instance": 1}
                urls = [f"http://127.0.0.1:{port}" for port in ports]
                with Router({"replicas": urls, "request_settings": settings}) as router:
                    router.ready(replicas)
                    found = busy_share(router.url, ports)
            elif name == "haproxy":
                if not shutil.which("haproxy"):
                    continue
                with haproxy(ports, "5s") as url:
                    found = busy_share(url, ports)
            else:
                found = busy_share(f"http://127.0.0.1:{ports[0]}/score", ports, 1)
            rows.append([replicas, name, *found])
        finally:
            for child in models:
                child.__exit__()
    table("Hand-over at saturation (1 slot, 5 ms)", ["replicas", "in front", "busy", "gap between two requests, us"], rows)


def busy_share(url, ports, in_flight=None):
    import threading
    in_flight = in_flight or 8 * len(ports)
    ran = threading.Thread(target=load, args=(url, 400 * len(ports), 8, "--max-in-flight", in_flight, "--timeout", "60s"))
    ran.start()
    time.sleep(1.5)
    before = [get(f"http://127.0.0.1:{port}/stats") for port in ports]
    time.sleep(5)
    after = [get(f"http://127.0.0.1:{port}/stats") for port in ports]
    ran.join()
    busy = sum(b["busy_ms"] - a["busy_ms"] for a, b in zip(before, after))
    up = sum(b["up_ms"] - a["up_ms"] for a, b in zip(before, after))
    count = sum(b["served"] - a["served"] for a, b in zip(before, after))
    return f"{100 * busy / up:.2f} %", f"{1000 * (up - busy) / max(count, 1):.0f}"


def scale_down():
    """1,000 scale-downs under 30 s streams: is a request cut?"""
    most, few, rounds = 102, 2, 10
    deployment = {
        "process": {"command": PROCESS + ["--sse-events", "30", "--sse-interval", "1000", "--concurrency", "4"]},
        "request_settings": {"max_queue_wait_ms": 60000, "max_concurrent_requests_per_instance": 4, "request_timeout_ms": 60000},
        "instance_count": most,
    }
    with Router(deployment) as router:
        router.ready(most, 120)
        seconds = rounds * 60
        streams = load_in_background(router.url, 4, seconds, "--stream", "--max-in-flight", 4000, "--timeout", "180s")
        downs = 0
        for number in range(rounds):
            say(f"scale_down: round {number + 1} of {rounds}")
            time.sleep(15)
            set_count(router, few)
            wait_for("the end of the drain", lambda: len(router.state()["replicas"]) <= few, 120)
            downs += most - few
            set_count(router, most)
            router.ready(most, 120)
        report = streams()
        requests = report["requests"]
    table("Scale-downs under streams of 30 s (4 slots, 4 streams/s)", ["scale-downs", "streams", "whole", "cut or failed"],
          [[downs, requests["due"], requests["succeeded"], requests["failed"]]])


def load_in_background(*arguments):
    """Starts a load; the function that waits for its report."""
    import concurrent.futures
    pool = concurrent.futures.ThreadPoolExecutor(1)
    return pool.submit(load, *arguments).result


def set_count(router, count):
    config = json.loads(router.config.read_text())
    config["endpoints"][0]["deployments"][0]["instance_count"] = count
    router.config.write_text(json.dumps(config))
    router.child.send_signal(signal.SIGHUP)


RUNS = {f.__name__: f for f in (step, wait, overload, leavers, comeback, misbehaving, handover, scale_down)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="*", help=", ".join(RUNS))
    parser.add_argument("--list", action="store_true")
    args = parser.parse_args()
    if args.list:
        for name, run in RUNS.items():
            print(f"{name:12} {run.__doc__}")
        return
    unknown = [name for name in args.run if name not in RUNS]
    if unknown:
        parser.error(f"no such run: {', '.join(unknown)}; there are: {', '.join(RUNS)}")
    if not os.path.exists(BIN):
        parser.error(f"{BIN} is not there; cargo build --release, or set SCOREGATE_BIN")
    for name in args.run or RUNS:
        RUNS[name]()


if __name__ == "__main__":
    main()
