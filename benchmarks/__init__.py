"""What the tables of docs/ were measured with; each module is run from the repository root, as `python -m benchmarks.NAME`."""
