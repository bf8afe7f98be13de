"""The benchmark without an install: ``python run_benchmark.py ...`` is ``wsolbench run ...``."""

import sys

from wsolbench.cli import benchmark_main

if __name__ == "__main__":
    sys.exit(benchmark_main())
