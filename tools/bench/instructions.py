"""Instructions of a produced record, counted by valgrind: the real shard on a simulated disk
(`crates/sim/src/cost.rs`), so that neither the kernel nor the machine's other work is in it.

Two runs of different length are taken from each other: what a broker does at its start is in both. Fails if
a figure is more than 3 % above the committed one. With --record the figures found are committed.
"""

import argparse
import json
import re
import subprocess
import sys

# Records in a request, and requests in the shorter and the longer run.
WORKLOADS = {"unbatched": (1, 1000, 2000), "batched": (100, 100, 200)}
WORSE_MAX = 0.03


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", required=True, help="the example `produce_cost`")
    parser.add_argument("--baseline", required=True)
    parser.add_argument("--record", action="store_true")
    return parser.parse_args()


def instructions(program, records, requests):
    done = subprocess.run(["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", program, str(records),
                           str(requests)], check=True, capture_output=True, text=True)
    return int(re.search(r"Collected : (\d+)", done.stderr)[1])


def of_a_record(program, records, shorter, longer):
    more = instructions(program, records, longer) - instructions(program, records, shorter)
    return more / (records * (longer - shorter))


def main():
    options = arguments()
    found = {name: round(of_a_record(options.program, *sizes)) for name, sizes in WORKLOADS.items()}
    if options.record:
        with open(options.baseline, "w", encoding="utf-8") as file:
            json.dump({"kind": "instructions", "settings": WORKLOADS, "instructions_for_each_record": found}, file, indent=1)
    with open(options.baseline, encoding="utf-8") as file:
        known = json.load(file)["instructions_for_each_record"]
    failed = 0
    for name, count in found.items():
        worse = count / known[name] - 1
        print(f"{name}: {count} instructions a record, {100 * worse:+.1f} % of the {known[name]} that are committed")
        failed += worse > WORSE_MAX
    if failed:
        print("more than 3 % is too much: find out why, or record it with a reason in the commit "
              "(tools/bench/instructions.sh --record)", file=sys.stderr)
    print(f"instructions: {len(found) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
