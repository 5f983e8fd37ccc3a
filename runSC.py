"""Find cell types in scRNA-seq data.

python runSC.py                                    # a small real set that comes with scanpy
python runSC.py my_cells.h5ad                      # labels are not needed
python runSC.py --dataset Zeisel                   # datasets/scdata/Zeisel.h5ad
python runSC.py --dataset Zeisel --config paper    # the published settings
"""

import sys

from utils import script

if __name__ == "__main__":
    sys.exit(script("cells", __file__))
