"""The PyTorch peer of the training step: torchvision, channels last, Adam in one fused update.

python torch_step.py step BACKBONE SIZE BATCH
"""

import sys

import torch
import torchvision
from contest import THREADS, serve, since, spent

CBR = {
    "cbr_tiny": (5, (32, 64, 128, 256)),
    "cbr_small": (7, (32, 64, 128, 256)),
    "cbr_large_w": (7, (64, 128, 256, 512)),
    "cbr_large_t": (7, (32, 64, 128, 256, 512)),
}
NAMES = ("resnet50", "densenet121", "inception_v3", "convnext_tiny", *CBR)


def make_model(backbone):
    if backbone not in CBR:
        options = {"aux_logits": False, "init_weights": False} if backbone == "inception_v3" else {}
        return getattr(torchvision.models, backbone)(num_classes=2, weights=None, **options)
    kernel, channels = CBR[backbone]
    layers, before = [], 3
    for block, width in enumerate(channels, start=1):
        layers.append(torch.nn.Conv2d(before, width, kernel, padding=kernel // 2, bias=False))
        layers += [torch.nn.BatchNorm2d(width), torch.nn.ReLU(inplace=True)]
        if backbone != "cbr_large_t" or block < len(channels):
            layers.append(torch.nn.MaxPool2d(3, stride=2, padding=1))
        before = width
    head = [torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Dropout(0.5), torch.nn.Linear(before, 2)]
    return torch.nn.Sequential(*layers, *head)


def main():
    _, backbone, size, batch = sys.argv[1:]
    torch.set_num_threads(int(THREADS))
    model = make_model(backbone).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.Adam(model.parameters(), 1e-4, fused=True)
    images = torch.randn(int(batch), 3, int(size), int(size)).to(memory_format=torch.channels_last)
    targets = torch.arange(int(batch)) % 2

    def steps(count):
        began = spent()
        for _ in range(count):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(images), targets)
            loss.backward()
            optimizer.step()
        loss.item()
        return since(began)

    serve(steps, first=steps(1), torch=torch.__version__, torchvision=torchvision.__version__)


if __name__ == "__main__":
    main()
