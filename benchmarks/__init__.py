"""What the tables of docs/ were measured with, each by `python -m benchmarks.NAME` in the folder of the repository."""
