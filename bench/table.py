"""One table of all that is timed against others: each script in a process of its own, then Markdown and JSON.

Scripts that are done stay in the folder of `--record`: stopped, the same command goes on with the others.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import torch

from mixmodal.curves import processor

HERE = Path(__file__).parent
SCRIPTS = ("train_step.py", "sampling.py", "qwen3.py", "step_floor.py", "rerun.py")


def machine(threads: int) -> str:
    """What it was measured on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf8").splitlines() if info.exists() else []
    flags = next((line for line in lines if line.startswith("flags")), "").split()
    found = [flag.replace("_", "-") for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags]
    return f"{processor()}, {os.cpu_count()} cores, {', '.join(found) or 'no vector units told'}; {threads} thread(s)"


def rows(tables: list[dict]) -> list[str]:
    """A line of Markdown for each table: ours, and by how much each other side takes longer."""
    lines = ["| work | ours | how many times longer |", "|---|---|---|"]
    for table in tables:
        work = table["work"]
        ours = work[table["ours"]]["seconds"]
        others = "; ".join(f"{name}: {found['times']:.2f}" for name, found in work.items() if name != table["ours"])
        lines.append(f"| {table['title']} | {ours:.3f} s ({table['turns']} turns) | {others or '-'} |")
    return lines


def main() -> None:
    """Run the scripts that are not done, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--record", type=Path, default=Path("bench_table"), help="folder of what was measured")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--scripts", nargs="*", default=list(SCRIPTS))
    given = parser.parse_args()
    given.record.mkdir(parents=True, exist_ok=True)
    failed, tables = [], []
    for script in given.scripts:
        done = given.record / f"{Path(script).stem}.jsonl"
        if not done.exists():
            begun = done.with_suffix(".part")
            begun.write_text("", encoding="utf8")
            asked = [f"--rounds={given.rounds}", f"--threads={given.threads}", f"--record={begun}"]
            if subprocess.run([sys.executable, HERE / script, *asked], check=False).returncode:
                failed.append(script)
                continue
            begun.replace(done)
        tables += [json.loads(line) for line in done.read_text(encoding="utf8").splitlines()]
    told = [machine(given.threads), f"torch {torch.__version__}", ""]
    print("\n" + "\n".join([*told, *rows(tables)]))
    result = {"machine": told[0], "torch": torch.__version__, "tables": tables}
    (given.record / "table.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf8")
    if failed:
        sys.exit(f"failed, so not in the table: {', '.join(failed)}")


if __name__ == "__main__":
    main()
