"""The Python API: what the commands do, as functions; `import radtransfer` has them all.

Data comes first, everything else by keyword, named as the option of the command line (`--image-root` is
`image_root`). Errors are those of `radtransfer.errors`. Wherever they are taken, these mean the same:

data: A path, NAME:FOLDER, a pandas frame with the columns of a CSV, or what `load_data` gave.
config: A shipped name (`"quickstart"`), a YAML file, or a checked `Config`; other arguments win over it.
settings: Every setting of the YAML: by its own name (`momentum=0.9`), by its section (`training={"momentum": 0.9}`),
    or with its dotted name in `**{"training.momentum": 0.9}`.
fold: A number or several; without it, every finished fold of a run.
out: A folder to write to; `overwrite` replaces an earlier result in it.
quiet: Show warnings only. Progress goes to standard error, as a bar in a notebook or a terminal and as lines elsewhere.
progress: A `radtransfer.process.Progress` that gets it instead; messages then name the options of the command line.
"""
