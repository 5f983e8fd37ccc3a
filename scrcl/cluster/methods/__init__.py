"""One file per clustering method; `scrcl.methods` is the registry that names them."""
