"""Find cell types in scRNA-seq data.

python runSC.py                                    # a small real set that comes with scanpy
python runSC.py --dataset my_cells.h5ad            # labels are not needed
python runSC.py --dataset Zeisel                   # datasets/scdata/Zeisel.h5ad
python runSC.py --dataset Zeisel --config paper    # the published settings
"""

from __future__ import annotations

import sys

import backed
import config
import data
import figures
import pipeline
import workflow
from config import SCConfig
from utils import run_script


def find(settings: SCConfig) -> workflow.Source:
    path = data.find_h5ad(settings.dataset)
    files = () if path is None else (path,)
    return workflow.Source(
        data.dataset_name(settings.dataset), path, lambda: backed.read(path, settings.max_memory), files
    )


TASK = workflow.Task(SCConfig, find, pipeline.find_cell_types, figures.draw, figures.FILES)


def main() -> None:
    workflow.run(TASK, config.parse(SCConfig, __doc__))


if __name__ == "__main__":
    figures.to_files()
    sys.exit(run_script(main))
