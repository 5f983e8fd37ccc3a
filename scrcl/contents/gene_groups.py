"""Genes that a user may want to have no part in telling cells apart: groups by name patterns, and lists in files."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from scrcl.contents.gene_names import symbol_column
from scrcl.messages import UserError, did_you_mean, log

# Tirosh et al. 2016 (Science 352:189), the genes of G1/S and of G2/M, with the symbols of today.
CELL_CYCLE = """
MCM5 PCNA TYMS FEN1 MCM2 MCM4 RRM1 UNG GINS2 MCM6 CDCA7 DTL PRIM1 UHRF1 CENPU MLF1IP HELLS RFC2 RPA2 NASP RAD51AP1 GMNN
WDR76 SLBP CCNE2 UBR7 POLD3 MSH2 ATAD2 RAD51 RRM2 CDC45 CDC6 EXO1 TIPIN DSCC1 BLM CASP8AP2 USP1 CLSPN POLA1 CHAF1B BRIP1
E2F8 HMGB2 CDK1 NUSAP1 UBE2C BIRC5 TPX2 TOP2A NDC80 CKS2 NUF2 CKS1B MKI67 TMPO CENPF TACC3 PIMREG FAM64A SMC4 CCNB2
CKAP2L CKAP2 AURKB BUB1 KIF11 ANP32E TUBB4B GTSE1 KIF20B HJURP CDCA3 JPT1 HN1 CDC20 TTK CDC25C KIF2C RANGAP1 NCAPD2
DLGAP5 CDCA2 CDCA8 ECT2 KIF23 HMMR AURKA PSRC1 ANLN LBR CKAP5 CENPE CTCF NEK2 G2E3 GAS2L3 CBX5 CENPA
""".split()
# The Y chromosome's genes that are read in most tissues, and those of the silent X; of human and mouse
SEX = """
XIST TSIX SRY ZFY RPS4Y1 RPS4Y2 DDX3Y USP9Y UTY KDM5D EIF1AY TMSB4Y NLGN4Y PRKY TXLNGY TTTY14 TTTY15 EIF2S3Y UBA1Y ZFY1
ZFY2
""".split()
# By symbols of human and mouse in upper case, which match as a whole
GROUPS = {
    "mitochondrial": r"MT[-:].*",
    "ribosomal": r"RP[SL]\d+[AXYL]?\d*(-PS\d+|P\d+)?|RPLP[012]|RPSA2?",
    "haemoglobin": r"HB(A[12]|B|D|E1|G[12]|M|Q1[AB]?|Z|A-[AX]\d?|B-(B[12HST]|BH\d|Y))",
    "immune-receptor": r"IG[HKL][VJ]\d.*|IGHD\d.*|IGH(M|D|E|A[12]?|G\d?[ABC]?)|IG[KL]C\d*"
    r"|TR[ABDG][VJ]\d.*|TR[BD]D\d|TR[ABDG]C\d?",
    "cell-cycle": "|".join(CELL_CYCLE),
    "sex": "|".join(SEX),
}


class GeneFilter(NamedTuple):
    """Which genes may be highly variable.

    Attributes
    ----------
    exclude
        Names of `GROUPS`, and files of gene names; their genes may not.
    only
        A file of gene names, which are the only ones that may; 'all' for no such list.
    """

    exclude: tuple[str, ...] = ()
    only: str = "all"

    def allows(self, var: pd.DataFrame) -> np.ndarray:
        """Return which genes may be highly variable, as [G] booleans, and say how many may not.

        Parameters
        ----------
        var
            The table of the genes. Names are compared with its index and with its column of symbols, in any case.

        Raises
        ------
        UserError
            When a group or file is unknown, when none of its genes is there, and when fewer than 2 genes are left.
        """
        allowed = np.ones(len(var), dtype=bool) if self.only == "all" else _listed(var, Path(self.only))
        for name in self.exclude:
            found = _matching(var, GROUPS[name]) if name in GROUPS else _listed(var, _file(name))
            if found.any():
                log.info("%d genes have no part (%s), such as %s.", found.sum(), name, var.index[found][0])
            else:
                log.warning("--exclude-genes %s has no effect: no gene has such a name.", name)
            allowed &= ~found
        if allowed.sum() < 2:
            raise UserError(f"Only {allowed.sum()} genes are left by --exclude-genes and --genes; leave out fewer.")
        return allowed


def _file(name: str) -> Path:
    """Return the file that a name means, or raise UserError."""
    if not os.path.isfile(os.path.expanduser(name)):
        near = did_you_mean(name, GROUPS)
        raise UserError(f"--exclude-genes {name!r} is no file{near}; it takes files and {', '.join(GROUPS)}.")
    return Path(name).expanduser()


def _names_of(var: pd.DataFrame) -> list[pd.Series]:
    """Return the names of the genes in upper case, and their symbols if they have ids for names."""
    key = symbol_column(var)
    names = [var.index.to_series()] + ([var[key]] if key is not None else [])
    return [own.astype(str).str.upper() for own in names]


def _matching(var: pd.DataFrame, pattern: str) -> np.ndarray:
    """Return which genes match a pattern as a whole, as [G] booleans."""
    whole = re.compile(pattern)
    return np.array([any(whole.fullmatch(name) for name in names) for names in zip(*_names_of(var))], dtype=bool)


def _listed(var: pd.DataFrame, path: Path) -> np.ndarray:
    """Return which genes a file lists, as [G] booleans: a gene per line, of which the first word counts."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The list of genes {path} cannot be read as text; it needs a gene per line.") from error
    words = {re.split(r"[\s,;]", line.strip())[0].strip("\"'").upper() for line in lines} - {""}
    found = np.any([names.isin(words).to_numpy() for names in _names_of(var)], axis=0)
    if not found.any():
        raise UserError(
            f"None of the {len(words)} genes in {path} is in the data, whose genes are like {var.index[0]}."
        )
    missing = len(words) - found.sum()
    if missing > 0:
        log.info("%d of the %d genes in %s are not in the data.", missing, len(words), path)
    return found
