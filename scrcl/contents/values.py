"""Find the expression values in an AnnData and say what they are: counts, logarithms, or something unusable."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from scrcl.keys import COUNT_LAYERS, OURS, PCS, SPATIAL_WEIGHT, UMAP
from scrcl.messages import UserError, log, one_line

ValueKind = Literal["counts", "log1p of counts", "non-negative", "log-normalised", "scaled", "not finite", "empty"]
# Lower is better; 0 ends the search.
PREFERENCE: dict[ValueKind, int] = {
    "counts": 0,
    "log1p of counts": 0,
    "non-negative": 1,
    "log-normalised": 1,
    "scaled": 2,
    "not finite": 3,
    "empty": 4,
}


class Expression(NamedTuple):
    """The values to work on.

    Attributes
    ----------
    cells
        AnnData with float32 CSR values in X, and the input's obs and obsm.
    kind
        What the values are, after 'log1p of counts' has been turned back into counts.
    slot
        Where they were found, for people to read.
    """

    cells: ad.AnnData
    kind: ValueKind
    slot: str

    def in_words(self) -> str:
        """Return what the values are and where they were found, for people to read."""
        return f"{self.kind}, in {self.slot}"


def find_expression(adata: ad.AnnData, layer: str = "auto") -> Expression:
    """Find the values to work on in X, in a layer or in .raw.

    Values that were only stored as log1p of counts are turned back into counts.

    Parameters
    ----------
    adata
        Cells or spots x genes.
    layer
        'X', 'raw', the name of a layer, or 'auto'. 'auto' takes the first that holds counts among X, the layers counts,
        count, raw_counts and raw, and .raw. Failing that, it takes the first other non-negative values, in the same
        order.

    Raises
    ------
    UserError
        When the values are empty, not finite or not numbers, when names repeat, when the layer is not there, and when
        there are only scaled values: no formula undoes scaling.
    """
    require_content(adata)
    kind: ValueKind | None = None
    for candidate in slots_of(adata, layer):
        values, genes = _matrix(adata, candidate)
        its_kind = value_kind(values)
        if kind is None or PREFERENCE[its_kind] < PREFERENCE[kind]:
            matrix, var, kind, slot = values, genes, its_kind, candidate
        if PREFERENCE[kind] == 0:
            break
    assert kind is not None  # slots_of gives at least one, or raises
    refuse_unusable(kind, slot)
    require_names(var.index, "gene name", "var_names_make_unique")
    if kind == "log1p of counts":
        matrix.data = counts_of(matrix.data)
        kind, slot = "counts", f"{slot}, turned back from log1p"
    log.info("Values: %s, in %s.", kind, slot)
    return Expression(ad.AnnData(matrix, obs=storable(adata.obs), var=storable(var), obsm=foreign(adata)), kind, slot)


def require_content(adata: ad.AnnData) -> None:
    """Raise UserError when there are no cells or no genes, when barcodes repeat, or when a sparse matrix is damaged."""
    if adata.n_obs == 0 or adata.n_vars == 0:
        raise UserError(f"The data hold {adata.n_obs} cells and {adata.n_vars} genes; there is nothing to cluster.")
    require_names(adata.obs_names, "cell barcode", "obs_names_make_unique")
    require_sound_indices(adata)


def foreign(adata: ad.AnnData) -> dict[str, Any]:
    """Return obsm without the entries that a run writes itself."""
    return {key: values for key, values in adata.obsm.items() if key not in (PCS, UMAP, OURS.embedding)}


def refuse_unusable(kind: ValueKind, slot: str) -> None:
    """Raise UserError for values that are scaled or not finite."""
    if kind == "scaled":
        raise UserError(
            f"The values in {slot} are negative in places, so they were scaled or corrected, and nothing better was "
            "found; scaling cannot be undone, so save the file with raw counts in X, in layers['counts'] or in .raw."
        )
    if kind == "not finite":
        raise UserError(f"There are NaN or infinite values in {slot}; remove or impute them first.")


def storable(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a copy of the table that h5ad can hold, without what an earlier run has written.

    Seurat exports have a column _index, and anndata does not write pandas strings by default.
    """
    frame = frame.drop(columns=["_index", OURS.total, SPATIAL_WEIGHT], errors="ignore").copy()
    strings = [name for name in frame if isinstance(frame[name].dtype, pd.StringDtype)]
    return frame.astype(dict.fromkeys(strings, object))


def layers_of(adata: ad.AnnData) -> dict[str, Any]:
    """Return the layers by name; from anndata 0.13 on `adata.layers` holds X as well, under None."""
    return {name: values for name, values in adata.layers.items() if name is not None}


def slots_of(adata: ad.AnnData, layer: str) -> list[str]:
    """Return where to look for values: 'X', '.raw', or a layer in the form layers['NAME'].

    Parameters
    ----------
    adata
        Cells or spots x genes.
    layer
        As for `find_expression`.

    Raises
    ------
    UserError
        When there is no such layer, or no values at all.
    """
    slots = ["X"] * (adata.X is not None) + [".raw"] * has_raw(adata)
    if layer == "auto":
        found = slots[:1] + [f"layers['{name}']" for name in COUNT_LAYERS if name in adata.layers] + slots[1:]
        if not found:
            raise UserError(f"There is no X, no .raw and no layer {' or '.join(COUNT_LAYERS)}; name one with --layer.")
        return found
    for slot in slots:
        if layer in (slot, slot.removeprefix(".")):
            return [slot]
    if layer not in adata.layers:
        there = ", ".join([*slots, *(f"the layer {name}" for name in layers_of(adata))]) or "no values at all"
        raise UserError(f"--layer {layer} is not in the data, which have {there}.")
    return [f"layers['{layer}']"]


def _matrix(adata: ad.AnnData, slot: str) -> tuple[sparse.csr_matrix, pd.DataFrame]:
    """Return a float32 CSR copy of the values at `slot`, and their genes."""
    values, var = values_at(adata, slot)
    try:
        return as_matrix(values), var
    except (TypeError, ValueError) as error:
        raise UserError(f"The values in {slot} are not numbers ({one_line(error)}).") from error


def as_matrix(values: Any, copy: bool = True) -> sparse.csr_matrix:
    """Return values of any type as float32 CSR without explicit zeros.

    Parameters
    ----------
    values
        [N, G], dense or sparse.
    copy
        False when the values may be changed in place.

    Raises
    ------
    TypeError, ValueError
        When they are not numbers.
    """
    if np.iscomplexobj(values):
        raise TypeError("they are complex")
    if not sparse.issparse(values):
        values = np.asarray(values, dtype=np.float64 if values.dtype.kind in "OSU" else None)
    with np.errstate(over="ignore"):  # a value too large for float32 becomes inf, which value_kind reports
        matrix = sparse.csr_matrix(values, dtype=np.float32, copy=copy)
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    return matrix


def has_raw(adata: ad.AnnData) -> bool:
    """Return whether there is a .raw.

    anndata's backed mode makes one without genes where a file says that it has none.
    """
    return adata.raw is not None and adata.raw.n_vars > 0


def values_at(adata: ad.AnnData, slot: str) -> tuple[Any, pd.DataFrame]:
    """Return the values at one place, as they are stored, and their genes.

    Parameters
    ----------
    adata
        Cells or spots x genes.
    slot
        One of the places that `slots_of` returns.
    """
    if slot == ".raw":
        return adata.raw.X, adata.raw.var
    if slot == "X":
        return adata.X, adata.var
    return adata.layers[slot.removeprefix("layers['").removesuffix("']")], adata.var


def require_sound_indices(adata: ad.AnnData) -> None:
    """Raise UserError for a sparse matrix with indices outside it, which scipy does not check and crashes on."""
    if adata.is_view:  # looking at it would slice it
        return
    parts: dict[str, Any] = {"X": adata.X, ".raw": adata.raw.X if has_raw(adata) else None}
    for slot in ("layers", "obsm", "varm", "obsp", "varp"):
        parts |= {f"{slot}[{key!r}]": values for key, values in getattr(adata, slot).items() if key is not None}
    for slot, values in parts.items():
        if sparse.issparse(values):
            try:
                values.check_format(full_check=True)
            except ValueError as error:
                raise UserError(
                    f"The sparse matrix in {slot} is damaged ({one_line(error)}); save or download it again."
                ) from error


def value_kind(matrix: sparse.csr_matrix) -> ValueKind:
    """Tell what the values are, from the values alone.

    Negative values mean scaling. Whole numbers are counts. Fractions up to 25 are logarithms (log2 of a million is 20);
    those that expm1 turns into whole numbers are log1p of counts. Larger fractions are TPM, RPKM or normalised counts.

    Parameters
    ----------
    matrix
        [N, G] float32, without explicit zeros.
    """
    values = matrix.data
    if values.size == 0:
        return "empty"
    if not np.isfinite(values).all():
        return "not finite"
    if (values < 0).any():
        return "scaled"
    if (values == np.rint(values)).all():
        return "counts"
    if values.max() > 25:
        return "non-negative"
    # Beyond e^14, float32 no longer tells one whole number from the next.
    undone = np.expm1(np.minimum(values, 14).astype(np.float64))
    # The error of float32 logarithms grows with the count they stand for.
    whole = np.abs(undone - np.rint(undone)) <= np.minimum(1e-5 * undone + 1e-5, 0.1)
    return "log1p of counts" if whole.all() else "log-normalised"


def counts_of(logarithms: np.ndarray) -> np.ndarray:
    """Return the counts whose log1p is given."""
    return np.rint(np.expm1(logarithms))


def require_names(names: pd.Index, what: str, remedy: str) -> None:
    """Raise UserError when a name repeats, or when no file can hold it.

    Parameters
    ----------
    names
        Barcodes or gene names.
    what
        What they are, as named in the error.
    remedy
        The method of AnnData that makes them unique.
    """
    odd = next((name for name in map(str, names) if "\0" in name or not _is_text(name)), None)
    if odd is not None:
        raise UserError(f"The {what} {odd!r} contains a character that cannot be written to a file; rename it.")
    if not names.is_unique:
        twice = names[names.duplicated()]
        raise UserError(
            f"The {what} {twice[0]!r} occurs more than once ({len(twice)} repeats in total); "
            f"make them unique, e.g. adata.{remedy}()."
        )


def _is_text(name: str) -> bool:
    """Return whether a name can be written as UTF-8, which half of a surrogate pair cannot."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
