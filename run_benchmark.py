"""``python run_benchmark.py ...`` is ``wsolbench run ...``; a sub-command passes through."""

import sys

from wsolbench.cli import benchmark_main

if __name__ == "__main__":
    sys.exit(benchmark_main())
