"""Find spatial domains in tissue.

python runST.py --demo                             # a small simulated tissue
python runST.py --dataset 151673                   # datasets/stdata/DLPFC/151673, a Visium folder
python runST.py --dataset path/to/outs             # any Visium or Visium HD folder; annotation is not needed
python runST.py --dataset my_spots.h5ad            # obsm['spatial'], or x and y in obs
python runST.py --dataset 151673 --config paper    # the published settings
"""

from __future__ import annotations

import sys

import config
import figures
import pipeline
import spatial
import tissue_figures
import workflow
from config import STConfig
from utils import UserError, run_script


def find(settings: STConfig) -> workflow.Source:
    path, name = spatial.find(settings.dataset), spatial.dataset_name(settings.dataset)
    if path is None:
        if settings.annotation not in ("auto", "none"):
            raise UserError("The simulated tissue has its own annotation; leave --annotation out.")
        return workflow.Source(name, None, spatial.demo)
    files = spatial.input_files(path, settings.annotation)
    return workflow.Source(name, path, lambda: spatial.read(path, name, settings.annotation), files)


TASK = workflow.Task(STConfig, find, pipeline.find_domains, tissue_figures.draw, tissue_figures.FILES)


def main() -> None:
    workflow.run(TASK, config.parse(STConfig, __doc__, demo="run on a small simulated tissue; needs no data"))


if __name__ == "__main__":
    figures.to_files()
    sys.exit(run_script(main))
