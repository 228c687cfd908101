"""The Python API: the commands as functions, all available from `import radtransfer`.

Data comes first; everything else is a keyword with the name of the option (`--image-root` is `image_root`). Errors are
those of `radtransfer.errors`. These arguments mean the same in every function:

data: A path, NAME:FOLDER, a pandas frame with the columns of a CSV, or the result of `load_data`.
config: A shipped name (`"quickstart"`), a YAML file, or a checked `Config`; other arguments override it.
settings: Any setting of the YAML: by its own name (`momentum=0.9`), by its section (`training={"momentum": 0.9}`),
    or with its dotted name in `**{"training.momentum": 0.9}`.
fold: A number or several; by default every finished fold of a run.
out: An output folder; `overwrite` replaces an earlier result in it.
quiet: Show warnings only. Progress goes to standard error, as a bar in notebooks and terminals, else as lines.
progress: A `radtransfer.process.Progress` that receives it instead; messages then name options of the command line.
"""
