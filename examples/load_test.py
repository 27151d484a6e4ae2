"""Many clients at once against examples/serve.py: latencies, throughput, and whether the answers are `mvlib predict`'s.

    mvlib export tf_efficientnet_lite0.pip_in1k --output lite0.ov
    python examples/serve.py lite0.ov &
    python examples/load_test.py lite0.ov
    python examples/load_test.py lite0.ov PHOTOS/ --clients 32 --requests 1000 --url http://127.0.0.1:8000
"""

import argparse
import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
from demo_data import photographs, run

from mvlib.data import find_images


async def ask(url: str, files: list[Path], clients: int, requests: int) -> tuple[list[float], dict[str, list], int]:
    """Seconds of each request that was answered, the last answer of each file, and how many were refused."""
    numbers, took, answers, refused = iter(range(requests)), [], {}, []

    async def client() -> None:
        async with httpx.AsyncClient(timeout=60, trust_env=False) as http:
            for file in (files[number % len(files)] for number in numbers):  # shared: a request is one client's
                start = time.perf_counter()
                response = await http.post(f"{url}/predict", content=file.read_bytes())
                if response.status_code == 503:
                    refused.append(file)
                    continue
                took.append(time.perf_counter() - start)
                answers[str(file)] = response.raise_for_status().json()["predictions"]

    await asyncio.gather(*(client() for _ in range(clients)))
    return took, answers, len(refused)


def is_same(ours: list[dict], theirs: list[dict]) -> bool:
    """The same classes in the same order, with probabilities within 1e-5: batches of other sizes round otherwise."""
    return [row["index"] for row in ours] == [row["index"] for row in theirs] and np.allclose(
        [row["probability"] for row in ours], [row["probability"] for row in theirs], atol=1e-5)


def main(argv: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("export", help="what is served: mvlib predict answers by it, too")
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("pictures", nargs="*", type=Path)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--requests", type=int, default=200)
    args = parser.parse_args(argv)
    files = list(find_images(args.pictures)) if args.pictures else photographs()
    start = time.perf_counter()
    try:
        took, answers, refused = asyncio.run(ask(args.url, files, args.clients, args.requests))
    except httpx.HTTPError as error:
        raise OSError(f"{args.url}: {str(error).partition(chr(10))[0] or type(error).__name__}") from error
    rate = len(took) / (time.perf_counter() - start)
    latencies = " ".join(f"p{share} {np.percentile(took, share) * 1e3:.0f}" for share in (50, 95, 99))
    print(f"{len(took)} requests by {args.clients} clients: {rate:.1f} a second, latencies in ms: {latencies}; "
          f"{refused} were too many at once")
    done = subprocess.run([sys.executable, "-m", "mvlib", "predict", *answers, "--model", args.export, "--format",
                           "jsonl"], stdout=subprocess.PIPE, text=True, check=True)
    expected = {row["file"]: row["predictions"] for row in map(json.loads, done.stdout.splitlines())}
    same = sum(is_same(answer, expected[file]) for file, answer in answers.items())
    print(f"{same} of {len(answers)} answers are those of mvlib predict")
    return {"same": same, "answers": len(answers), "requests": len(took), "refused": refused}


if __name__ == "__main__":
    run(main)
