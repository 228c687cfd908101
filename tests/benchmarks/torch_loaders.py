"""The PyTorch peers of `bench_images.py`, in a process of their own: one rate for each line that is asked for.

    python torch_loaders.py FOLDER SIZE

reads "pil" or "torchvision" from its input and answers with images per second of a pass over the folder's JPEGs.
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch
import torchvision.transforms.v2.functional
from PIL import Image

BATCH = 8


class Images(torch.utils.data.Dataset):
    def __init__(self, files, read):
        self.files, self.read = files, read

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        return self.read(self.files[index])


def with_pil(file):
    with Image.open(file) as image:
        small = image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)  # averages where it shrinks
    return torch.from_numpy(np.array(small)).permute(2, 0, 1).float()


def with_torchvision(file):
    image = torchvision.io.decode_jpeg(torchvision.io.read_file(str(file)), mode=torchvision.io.ImageReadMode.RGB)
    return torchvision.transforms.v2.functional.resize(image, [SIZE, SIZE], antialias=True).float()


def one_pass(files, read):
    loader = torch.utils.data.DataLoader(Images(files, read), batch_size=BATCH, num_workers=2, prefetch_factor=2)
    batches = iter(loader)
    next(batches)  # the workers have started
    start, seen = time.perf_counter(), 0
    for images in batches:
        seen += len(images)
    return seen / (time.perf_counter() - start)


if __name__ == "__main__":
    folder, SIZE = Path(sys.argv[1]), int(sys.argv[2])
    files = sorted(folder.glob("*.jpg")) * (1 + 95 // len(list(folder.glob("*.jpg"))))
    readers = {"pil": with_pil, "torchvision": with_torchvision}
    torch.set_num_threads(1)
    for line in sys.stdin:
        print(one_pass(files, readers[line.strip()]), flush=True)
