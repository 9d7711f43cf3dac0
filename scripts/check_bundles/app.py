"""The program that is bundled: prints one vector and the process's peak memory as JSON."""

import multiprocessing

multiprocessing.freeze_support()  # first of all: a worker of a bundle starts this file again

import json  # noqa: E402
import resource  # noqa: E402
import sys  # noqa: E402

import embedge  # noqa: E402
from embedge import Encoder  # noqa: E402


def main() -> None:
    if sys.argv[1:] == ["pool"]:
        with multiprocessing.get_context("spawn").Pool(2) as pool:
            print(json.dumps(pool.map(abs, [-1, 2, -3])))
        return
    vector = Encoder().encode("A man is eating food.")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    answer = {"vector": vector.tolist(), "peak_mb": peak, "embedge": embedge.__file__}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
