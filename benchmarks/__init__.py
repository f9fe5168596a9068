"""What deployguard costs and how fast it is, measured on the machine that runs it: `python -m benchmarks`."""
