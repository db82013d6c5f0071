"""Benchmarks: popoto beside bare redis-py and beside other libraries. Run with `python -m benchmarks`.

The whole folder is also imported by the workers, which run in other virtual environments: what a worker
imports (`data`, `operations`, `counting`, `micro`, `workers/`) uses the standard library, redis-py and the
library under test only.
"""
