"""Vision transformers in the files that people have: timm, DINO, MAE, Hugging Face, CLIP.

Each layout names the same tensors in its own way. `LAYOUTS` maps its names to one set of names, from which
`convert_vit` makes the arrays of our layers. What belongs to the architecture of the file and not to its tensors,
such as the epsilon of its norms, is that of the layout, unless a `config.json` in the folder of the file says more.

Sources of the names: timm `vision_transformer`, facebookresearch/dinov2 and mae, transformers `ViTModel`,
`Dinov2Model` and `CLIPVisionModel`, open_clip `VisionTransformer`.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from radtransfer.errors import WeightsError, WeightsMismatchError
from radtransfer.models.backbone import BACKBONES, Backbone
from radtransfer.models.vit import POSITIONS
from radtransfer.pretrained.torch_file import Tensors

_NOT_PREFERRED = re.compile(r"student|momentum|encoder_k|ema_")
"""In prefixes of files that hold a network twice: the other one is what their authors evaluate."""

_BLOCK = r"block\1."
_TIMM_PARTS = {
    "attn.qkv": "qkv",
    "attn.proj": "proj",
    "mlp.fc1": "mlp1",
    "mlp.fc2": "mlp2",
    "ls1": "scale1",
    "ls2": "scale2",
}
_HF_PARTS = {
    **{f"attention.attention.{name}": name for name in ("query", "key", "value")},
    **{f"attention.{name[0]}_proj": name for name in ("query", "key", "value")},
    "attention.output.dense": "proj",
    "attention.o_proj": "proj",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "intermediate.dense": "mlp1",
    "output.dense": "mlp2",
    "mlp.fc1": "mlp1",
    "mlp.fc2": "mlp2",
    "layer_scale1": "scale1",
    "layer_scale2": "scale2",
}
_CLIP_PARTS = {
    "ln_1": "norm1", "ln_2": "norm2", "attn.in_proj_": "qkv.", "attn.out_proj": "proj", "mlp.c_fc": "mlp1",
    "mlp.c_proj": "mlp2",
}  # fmt: skip
_HF_CLIP_PARTS = {
    **{f"self_attn.{name[0]}_proj": name for name in ("query", "key", "value")},
    "self_attn.out_proj": "proj",
    "layer_norm1": "norm1",
    "layer_norm2": "norm2",
    "mlp.fc1": "mlp1",
    "mlp.fc2": "mlp2",
}


@dataclass(frozen=True)
class Layout:
    """How one family of files names a vision transformer.

    Attributes:
        first: Name of the patch embedding's kernel; what stands before it in a file is the prefix of all.
        names: Pattern of a name, whole or up to its last dot, to our name.
        parts: Name of a part of a block to ours; others keep theirs.
        blocks: Pattern of what stands before a part, the number of the block its group.
        options: Of `build_vit`.
        preprocessing: Input scale that the family's networks are trained with.
    """

    first: str
    names: Mapping[str, str]
    parts: Mapping[str, str]
    blocks: str
    options: Mapping[str, Any]
    preprocessing: str = "torch"


LAYOUTS = {
    "timm": Layout(
        "patch_embed.proj.weight",
        {
            "patch_embed.proj": "patch", "cls_token": "class", "pos_embed": "positions", "norm": "norm",
            "register_tokens|reg_token": "registers", "norm_pre": "norm_before",
        },
        _TIMM_PARTS,
        r"blocks\.(?:\d+\.)?(\d+)\.",
        {"epsilon": 1e-6},
    ),
    "huggingface": Layout(
        "embeddings.patch_embeddings.projection.weight",
        {
            "embeddings.patch_embeddings.projection": "patch", "embeddings.cls_token": "class",
            "embeddings.position_embeddings": "positions", "embeddings.register_tokens": "registers",
            "layernorm": "norm",
        },
        _HF_PARTS,
        r"(?:encoder\.layer|layers?)\.(\d+)\.",
        {"epsilon": 1e-12},
        "tf",
    ),
    "clip": Layout(
        "conv1.weight",
        {
            "conv1": "patch", "class_embedding": "class", "positional_embedding": "positions", "ln_pre": "norm_before",
            "ln_post": "norm",
        },
        _CLIP_PARTS,
        r"transformer\.resblocks\.(\d+)\.",
        {"epsilon": 1e-5},
        "clip",
    ),
    "huggingface_clip": Layout(
        "embeddings.patch_embedding.weight",
        {
            "embeddings.patch_embedding": "patch", "embeddings.class_embedding": "class",
            "embeddings.position_embedding.weight": "positions", "pre_layrnorm": "norm_before",
            "post_layernorm": "norm",
        },
        _HF_CLIP_PARTS,
        r"encoder\.layers\.(\d+)\.",
        {"epsilon": 1e-5, "activation": "quick_gelu"},
        "clip",
    ),
}  # fmt: skip


class VitWeights(NamedTuple):
    """A vision transformer that was found in a file.

    Attributes:
        spec: With the options of `build_vit` that the file asks for.
        options: Those of them that are not the backbone's own.
        tensors: By our names: "block1.qkv.weight".
        left_out: Names in the file that are not the network's: heads, decoders, another network.
    """

    spec: Backbone
    options: dict[str, Any]
    preprocessing: str
    tensors: dict[str, np.ndarray]
    left_out: tuple[str, ...]
    notes: tuple[str, ...]


def find_vit(path: Path, tensors: Tensors, backbones: Mapping[str, Backbone] = BACKBONES) -> VitWeights | None:
    """The vision transformer in `tensors`, read from `path`; None if there is none. It is one of `backbones`.

    Raises:
        WeightsMismatchError: A vision transformer, of a size or with parts that ours do not have.
    """
    found = next(
        ((name, layout, prefixes) for name, layout in LAYOUTS.items() if (prefixes := _prefixes(tensors, layout))), None
    )
    if found is None:
        return None
    family, layout, prefixes = found
    prefix = min(prefixes, key=lambda prefix: (_NOT_PREFERRED.search(prefix) is not None, len(prefix)))
    named, left_out = {}, []
    for name, array in tensors.items():
        known = _renamed(name.removeprefix(prefix), layout) if name.startswith(prefix) else None
        if known is None:
            left_out.append(name)
        else:
            named[known] = array
    size, patch = named["patch.weight"].shape[0], named["patch.weight"].shape[-1]
    depth = len({name.partition(".")[0] for name in named if name.startswith("block")})
    known = {name: backbones[name] for name in backbones if name.startswith("vit_")}
    keywords = {name: spec.build.keywords for name, spec in known.items()}
    backbone = next(
        (name for name, own in keywords.items() if (own["width"], own["depth"], own["patch"]) == (size, depth, patch)),
        None,
    )
    if backbone is None:
        raise WeightsMismatchError(
            f"{path} holds a vision transformer of {depth} blocks and {size} channels with patches of {patch} pixels, "
            f"which is none of {', '.join(keywords)}."
        )
    options = dict(layout.options)
    options["layer_scale"] = "block1.scale1" in named
    options["registers"] = named["registers"].shape[-2] if "registers" in named else 0
    options["heads"] = 12 if "base_encoder." in prefix and size == 384 else size // 64  # MoCo v3 has twice as many
    options["norm_before"] = "norm_before.weight" in named
    if "block1.scale1" in named:
        options["epsilon"] = 1e-6  # DINOv2
    elif options["norm_before"]:
        options["epsilon"] = 1e-5  # CLIP
    preprocessing = "torch" if "block1.scale1" in named else layout.preprocessing
    options, notes = _configured(path, family, options)
    defaults = {"layer_scale": False, "registers": 0, "epsilon": 1e-6, "activation": "gelu", "norm_before": False}
    defaults["heads"] = size // 64
    defaults |= keywords[backbone]
    changed = {name: value for name, value in options.items() if defaults[name] != value}
    spec = known[backbone].with_options(**changed)
    return VitWeights(spec, changed, preprocessing, named, tuple(left_out), notes)


def _prefixes(tensors: Tensors, layout: Layout) -> list[str]:
    ends = [name.removesuffix(layout.first) for name in tensors if name.endswith(layout.first)]
    marks = [name for name in layout.names if "class" in layout.names[name]]
    return [prefix for prefix in ends if any(prefix + mark in tensors for mark in marks)]


def _renamed(name: str, layout: Layout) -> str | None:
    """Our name of the file's `name` without its prefix; None for what is not the network's."""
    for pattern, ours in layout.names.items():
        found = re.fullmatch(rf"(?:{pattern})(\.\w+)?", name)
        if found:
            return ours + (found[1] or "")
    block = re.match(layout.blocks, name)
    if block is None:
        return None
    rest = name[block.end() :]
    for theirs, ours in layout.parts.items():
        if rest.startswith(theirs):
            rest = ours + rest.removeprefix(theirs)
            break
    part, _, leaf = rest.partition(".")
    # The factors of a LayerScale are called gamma, lambda1 and otherwise.
    return f"block{int(block[1]) + 1}.{part}" + ("" if part.startswith("scale") else f".{leaf}")


def _configured(path: Path, family: str, options: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The options, with what the configuration in the folder of the file says, and notes of what was assumed."""
    for file in (path.parent / "config.json", path.parent / "open_clip_config.json"):
        if not file.is_file():
            continue
        try:
            config = json.loads(file.read_text(encoding="utf-8"))
            config = config.get("vision_config", config)
            if "layer_norm_eps" in config:
                options["epsilon"] = float(config["layer_norm_eps"])
            if "num_attention_heads" in config:
                options["heads"] = int(config["num_attention_heads"])
            if config.get("hidden_act") in ("gelu", "quick_gelu"):
                options["activation"] = config["hidden_act"]
            if "model_cfg" in config:
                options["activation"] = "quick_gelu" if config["model_cfg"].get("quick_gelu") else "gelu"
        except (ValueError, TypeError, AttributeError) as error:
            raise WeightsError(
                f"{file} lies beside the weights and cannot be read: {error}. Repair or move it."
            ) from None
        return options, (f"Epsilon {options['epsilon']:g} as {file.name} says.",)
    activation = options.get("activation", "gelu")
    clip = f", activation {activation}" if "clip" in family else ""
    return options, (f"Epsilon {options['epsilon']:g}{clip}, as the {family} layout has it; no config.json says more.",)


def vit_arrays(path: Path, found: VitWeights) -> dict[str, dict[str, np.ndarray]]:
    """The arrays of every layer of `found.spec`, by the paths of its variables.

    Raises:
        WeightsMismatchError: A tensor is missing, has another shape, or ours have no place for it.
    """
    tensors, width = dict(found.tensors), found.tensors["patch.weight"].shape[0]
    built = found.spec.build.keywords
    heads = built.get("heads") or width // 64

    def take(name: str, *shape: int, default: float | None = None) -> np.ndarray:
        array = tensors.pop(name, None)
        if array is None and default is not None:
            return np.full(shape, default, np.float32)
        if array is None or array.shape != shape:
            received = "nothing" if array is None else f"{array.shape}"
            raise WeightsMismatchError(
                f"{path}: expected {name} of shape {shape} for {found.spec.name}, found {received}."
            )
        return array

    def dense(name: str, out: int, into: int) -> dict[str, np.ndarray]:
        return {"kernel": take(f"{name}.weight", out, into).T, "bias": take(f"{name}.bias", out, default=0.0)}

    def norm(name: str) -> dict[str, np.ndarray]:
        return {"gamma": take(f"{name}.weight", width), "beta": take(f"{name}.bias", width)}

    def attention(name: str) -> dict[str, np.ndarray]:
        if f"{name}.qkv.weight" in tensors:
            kernels = np.split(take(f"{name}.qkv.weight", 3 * width, width).T, 3, axis=1)
            biases = np.split(take(f"{name}.qkv.bias", 3 * width, default=0.0), 3)
            parts = [{"kernel": kernel, "bias": bias} for kernel, bias in zip(kernels, biases, strict=True)]
        else:
            parts = [dense(f"{name}.{part}", width, width) for part in ("query", "key", "value")]
        found = {}
        for part, arrays in zip(("query", "key", "value"), parts, strict=True):
            found[f"{part}/kernel"] = arrays["kernel"].reshape(width, heads, -1)
            found[f"{part}/bias"] = arrays["bias"].reshape(heads, -1)
        arrays = dense(f"{name}.proj", width, width)
        found["attention_output/kernel"] = arrays["kernel"].reshape(heads, -1, width)
        return found | {"attention_output/bias": arrays["bias"]}

    patch = tensors["patch.weight"].shape[-1]
    kernel = take("patch.weight", width, 3, patch, patch).transpose(2, 3, 1, 0)
    layers = {
        "patch_embedding": {"kernel": kernel, "bias": take("patch.bias", width, default=0.0)},
        POSITIONS: {"embeddings": _position_table(path, tensors, width)},
    }
    if built.get("norm_before"):
        layers["norm_before"] = norm("norm_before")
    for number in range(1, built["depth"] + 1):
        name = f"block{number}"
        layers[f"{name}_norm1"] = norm(f"{name}.norm1")
        layers[f"{name}_attention"] = attention(name)
        layers[f"{name}_norm2"] = norm(f"{name}.norm2")
        layers[f"{name}_mlp1"] = dense(f"{name}.mlp1", 4 * width, width)
        layers[f"{name}_mlp2"] = dense(f"{name}.mlp2", width, 4 * width)
        for part in ("scale1", "scale2") if built["layer_scale"] else ():
            layers[f"{name}_{part}"] = {"kernel": take(f"{name}.{part}", width)}
    layers["norm"] = norm("norm")
    if tensors:
        raise WeightsMismatchError(
            f"{path} holds parts that {found.spec.name} does not have: {', '.join(list(tensors)[:4])}. Such a vision "
            "transformer cannot be converted."
        )
    return layers


def _position_table(path: Path, tensors: dict[str, np.ndarray], width: int) -> np.ndarray:
    """The rows of class token, registers and patches; what is learned of each token added to its position."""
    positions = tensors.pop("positions").reshape(-1, width)
    first = tensors.pop("class").reshape(1, width)
    registers = tensors.pop("registers", np.zeros((0, width), np.float32)).reshape(-1, width)
    patches = positions
    if round(len(positions) ** 0.5) ** 2 != len(positions):
        first, patches = first + positions[:1], positions[1:]
    if round(len(patches) ** 0.5) ** 2 != len(patches):
        raise WeightsMismatchError(f"{path} has {len(patches)} positions of patches; expected those of a square image.")
    return np.concatenate([first, registers, patches])
