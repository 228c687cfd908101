"""Makes `torch_originals.json`: what vision transformers of PyTorch give for an image, at weights that anyone can make.

    pip install torch torchvision timm transformers open_clip_torch
    python tests/golden/torch_originals.py

The tensors are drawn from their names (`drawn`), so that the file holds names, shapes and features only. Tests draw the
same tensors, convert them, and compare the features.
"""

import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from torch_files import drawn  # noqa: E402

FILE = Path(__file__).with_name("torch_originals.json")
WIDTH, DEPTH = 64, 4
SIZE = {16: 48, 14: 42}
"""Of the image, by patch: nine patches."""


def image(patch: int) -> np.ndarray:
    """(1, size, size, 3), as after preprocessing."""
    return np.random.default_rng(7).random((1, SIZE[patch], SIZE[patch], 3), np.float32) * 2 - 1


def main() -> None:
    import open_clip.transformer
    import timm
    import torch
    import transformers
    from timm.models.vision_transformer import VisionTransformer

    common = {
        "hidden_size": WIDTH,
        "num_hidden_layers": DEPTH,
        "num_attention_heads": 1,
        "intermediate_size": 4 * WIDTH,
    }
    plain = {"embed_dim": WIDTH, "depth": DEPTH, "num_heads": 1, "num_classes": 3}
    built = {
        "timm": (16, VisionTransformer(48, 16, **plain), "forward_features", ""),
        "timm_larger_image": (16, VisionTransformer(96, 16, dynamic_img_size=True, **plain), "forward_features", ""),
        "timm_dinov2": (14, VisionTransformer(42, 14, init_values=1e-5, **plain), "forward_features", ""),
        "timm_registers": (
            14,
            VisionTransformer(42, 14, init_values=1e-5, reg_tokens=4, no_embed_class=True, **plain),
            "forward_features",
            "",
        ),
        "timm_clip": (
            16,
            VisionTransformer(48, 16, pre_norm=True, norm_layer=torch.nn.LayerNorm, **plain),
            "forward_features",
            "",
        ),
        "moco_v3": (16, VisionTransformer(48, 16, **plain), "forward_features", "module.base_encoder."),
        "huggingface_vit": (
            16,
            transformers.ViTModel(transformers.ViTConfig(image_size=48, patch_size=16, **common)),
            "last_hidden_state",
            "vit.",
        ),
        "huggingface_dinov2": (
            14,
            transformers.Dinov2Model(transformers.Dinov2Config(image_size=42, patch_size=14, **common)),
            "last_hidden_state",
            "",
        ),
        "huggingface_registers": (
            14,
            transformers.Dinov2WithRegistersModel(
                transformers.Dinov2WithRegistersConfig(image_size=42, patch_size=14, **common)
            ),
            "last_hidden_state",
            "",
        ),
        "huggingface_clip": (
            16,
            transformers.CLIPVisionModel(transformers.CLIPVisionConfig(image_size=48, patch_size=16, **common)),
            "pooler_output",
            "",
        ),
    }
    towers = {"patch_size": 16, "width": WIDTH, "layers": DEPTH, "heads": 1, "mlp_ratio": 4.0, "output_dim": 32}
    built["open_clip"] = (16, open_clip.transformer.VisionTransformer(48, **towers), "trunk", "visual.")
    versions = {module.__name__: module.__version__ for module in (timm, transformers, torch, open_clip)}
    families = {}
    for family, (patch, model, output, prefix) in built.items():
        model.eval()
        shapes = {name: list(x.shape) for name, x in model.state_dict().items() if x.dtype == torch.float32}
        state = {name: torch.from_numpy(drawn(prefix + name, shape)) for name, shape in shapes.items()}
        model.load_state_dict(state, strict=False)
        pixels = torch.from_numpy(image(patch).transpose(0, 3, 1, 2))
        with torch.no_grad():
            if output == "forward_features":
                features = model.forward_features(pixels)
            elif output == "last_hidden_state":
                features = model(pixels).last_hidden_state
            elif output == "trunk":
                model.proj = None
                features = model(pixels)[:, None]
            else:
                features = model(pixels).pooler_output[:, None]
        families[family] = {
            "patch": patch,
            "tensors": {prefix + name: shape for name, shape in shapes.items()},
            "features": [[float(f"{value:.6g}") for value in token] for token in features[0].tolist()],
        }
    FILE.write_text(json.dumps({"versions": versions, "families": families}) + "\n", encoding="utf-8")
    print({family: len(entry["features"]) for family, entry in families.items()})


if __name__ == "__main__":
    main()
