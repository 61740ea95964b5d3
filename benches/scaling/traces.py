#!/usr/bin/env python3
"""Runs the rules of `scoregate decide` in the autoscaler simulation, beside the reference rules that are built into it.

  traces.py SIMULATOR [--scoregate PATH] [--trace NAME ...] [--setting NAME ...] [--tolerance 0.001]

SIMULATOR is the folder with run.py, src and traces; it is not part of this repository. Its build and its caches go to
$SIM_WORK. Prints Markdown: for each trace and setting the documented rule to the letter (before), then `azureml` and `adaptive`.
Each cell is rejects in percent / cost / bill. A debug build will do, at twice the time. The cost is replica-seconds, the bill adds 200 mean service times (over the slots
of a replica) for each rejected request; both are over those of the clairvoyant schedule where the simulator's refs.json
has it, else in thousands (k). Exit code 1: a rule is not what it should be:
  azureml-strict, azureml   within 1 % of the replica-seconds and 0.05 points of the rejects of the reference
  adaptive                  its bill is not above that of the reference `sqrt` by more than the tolerance, on any trace
Standard library only, Python 3.8 or newer.
"""
import argparse, importlib.util, json, math, os, shlex, sys

SETTINGS = {
    "base": {},
    "start-up 5 s": {"cold": 5},
    "start-up 120 s": {"cold": 120},
    "queue 5 s": {"wait": 5},
    "8 slots": {"c": 8},
}
PRICE = 200.0


def load_simulator(folder):
    spec = importlib.util.spec_from_file_location("simulator_run", os.path.join(folder, "run.py"))
    run = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(run)
    return run


def mean_service(run, trace):
    """seconds; the simulator keeps pairs of doubles of the platform's order"""
    import array

    pairs = array.array("d")
    with open(run.trace_bin(trace), "rb") as file:
        pairs.frombytes(file.read())
    return sum(pairs[1::2]) / (len(pairs) // 2)


def clairvoyant(run, folder, trace, setting):
    """replica-seconds of the clairvoyant schedule, if they are known without a search"""
    values = {"c": 1, "wait": 0.5, "cold": 30, "cold_sigma": 0.25, "tick": 1.0, "min": 1, **setting}
    name = os.path.basename(run.trace_path(trace))[: -len(".csv.gz")]
    key = f"{name}|" + ",".join(f"{k}={float(values[k]):g}" for k in sorted(values)) + ",eps=0.001"
    with open(os.path.join(folder, "refs.json")) as file:
        found = json.load(file).get(key)
    return found and found["replica_s"]


class Row:
    def __init__(self, run, folder, command, trace, setting):
        ours = [f"exec:{command} decide --policy {p}" for p in ("azureml-strict", "azureml", "adaptive")]
        theirs = ["azureml", "azureml:mode=offered", "sqrt"]
        results = run.simulate(trace, ours + theirs, **setting)
        self.ours, self.theirs = results[:3], results[3:]
        self.price = PRICE * mean_service(run, trace) / setting.get("c", 1)
        self.best = clairvoyant(run, folder, trace, setting)

    def bill(self, result):
        return result["replica_s"] + self.price * result["rejected"]

    def cell(self, result):
        unit, mark = (self.best, "") if self.best else (1000.0, " k")
        cost, bill = result["replica_s"] / unit, self.bill(result) / unit
        return f"{result['rej_pct']:.2f} / {cost:.2f}{mark} / {bill:.2f}{mark}"

    def misses(self, tolerance):
        for name, a, b in zip(("azureml-strict", "azureml"), self.ours, self.theirs):
            if abs(a["replica_s"] / b["replica_s"] - 1) > 0.01:
                yield f"{name}: {a['replica_s']:.0f} replica-seconds, {b['replica_s']:.0f} in the reference"
            if abs(a["rej_pct"] - b["rej_pct"]) > 0.05:
                yield f"{name}: {a['rej_pct']:.3f} % rejected, {b['rej_pct']:.3f} % in the reference"
        a, b = self.bill(self.ours[2]), self.bill(self.theirs[2])
        if a > b * (1 + tolerance):
            yield f"adaptive: bill {a:.0f}, {b:.0f} in the reference"

    def exact(self):
        keys = ("rejected", "replica_s", "ups", "downs")
        pairs = zip(("strict", "azureml", "adaptive"), self.ours, self.theirs)
        return [name for name, a, b in pairs if all(a[key] == b[key] for key in keys)]


def mean(values):
    return math.exp(sum(map(math.log, values)) / len(values))


def main():
    root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("simulator")
    parser.add_argument("--scoregate", default=os.path.join(root, "target", "release", "scoregate"))
    parser.add_argument("--trace", action="append")
    parser.add_argument("--setting", action="append", choices=list(SETTINGS))
    parser.add_argument("--tolerance", type=float, default=0.001)
    args = parser.parse_args()
    run = load_simulator(args.simulator)
    command = shlex.quote(os.path.abspath(args.scoregate))
    missed = []
    for name in args.setting or SETTINGS:
        print(f"\n### {name}\n")
        print("| trace | documented rule | `azureml` | `adaptive` | to the last replica as the reference |")
        print("|---|---|---|---|---|")
        rows = {}
        for trace in args.trace or run.trace_names():
            row = rows[trace] = Row(run, args.simulator, command, trace, SETTINGS[name])
            cells = " | ".join(row.cell(result) for result in row.ours)
            print(f"| {trace} | {cells} | {', '.join(row.exact()) or '-'} |", flush=True)
            missed += [f"{name}, {trace}, {miss}" for miss in row.misses(args.tolerance)]
        before = [row.bill(row.ours[0]) for row in rows.values()]
        after = [mean([row.bill(row.ours[i]) / b for row, b in zip(rows.values(), before)]) for i in (1, 2)]
        known = [row for row in rows.values() if row.best]
        if len(known) == len(rows):
            bills = [mean([row.bill(row.ours[i]) / row.best for row in known]) for i in range(3)]
            print("| **mean bill** | " + " | ".join(f"**{bill:.2f}**" for bill in bills) + " | |")
        print(f"\nBill over that of the documented rule, geometric mean: {after[0]:.2f} `azureml`, {after[1]:.2f} `adaptive`.")
    for miss in missed:
        print(f"not accepted: {miss}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
