"""How the first step's gradient is compared, one file a mode (`Configuration.gradient_check`).

`check(rank, trainer, mesh)` is called between backward and the optimizer of the first step. It
returns fields of the rank's result, `gradient` among them where the mode judges by itself. `proxy`
has no file: the controller judges another trial in its stead.
"""
