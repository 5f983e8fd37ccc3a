"""Rank the marker genes of clusters, draw them, and write a report.

python draw_DEGs.py                                             # the latest finished run of runSC.py
python draw_DEGs.py --task ST                                   # the latest finished run of runST.py
python draw_DEGs.py --dataset Zeisel                            # the run of that name
python draw_DEGs.py --dataset my_cells.h5ad --labels leiden     # any data set by an obs column
python draw_DEGs.py --dataset my_cells.h5ad --labels mine.csv   # or by a table with barcodes
python draw_DEGs.py --marker-genes known.csv                    # name clusters; columns type and gene
"""

import sys

from utils import script

if __name__ == "__main__":
    sys.exit(script("markers", __file__))
