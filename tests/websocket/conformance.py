"""Runs the conformance suite's client against a server and prints one JSON list per case: id, verdicts, passed."""

import asyncio
import json
import sys

from kosoku import FailureError, run_fuzzingclient


async def main() -> None:
    # Of the cases about compression those with messages up to 8 KiB: the others send a thousand large ones within a
    # deadline of the suite's own, which says more about the machine than about the server.
    large = [f"{group}.*.{size}" for group in (12, 13) for size in range(7, 19)]
    try:
        results = await run_fuzzingclient(sys.argv[1], None, large, concurrency=2)
    except FailureError as failure:
        results = failure.results
    for result in results:
        print(json.dumps([result.case_id, result.behavior.value, result.behavior_close.value, result.passed]))


asyncio.run(main())
