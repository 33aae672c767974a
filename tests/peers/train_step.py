"""PyTorch's side of the comparison: the same network in diffusers, same batch, loss and optimiser; one JSON line.

    python train_step.py CONFIG.json --batch 64 --repeat 7 [--forward-only] [--precision bf16]
"""
import argparse, json, resource, statistics, time

import torch
from diffusers import UNet2DModel

parser = argparse.ArgumentParser()
parser.add_argument("config")
parser.add_argument("--batch", type=int, default=64)
parser.add_argument("--repeat", type=int, default=7)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--forward-only", action="store_true")
parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
args = parser.parse_args()
torch.set_num_threads(args.threads)
torch.manual_seed(0)

config = json.load(open(args.config))
config.pop("_class_name")
block = config.pop("limbeck_space_to_depth", 1)
image = (config["in_channels"], config["sample_size"], config["sample_size"])
# diffusers has no space-to-depth stem: the network between two pixel (un)shuffles is the same computation.
config["sample_size"] //= block
config["in_channels"] *= block * block
config["out_channels"] *= block * block
model = UNet2DModel(**config)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)

x = torch.randn(args.batch, *image)
t = torch.full((args.batch,), 0.3)
classes = config.get("num_class_embeds")
label = torch.arange(args.batch) % classes if classes else None


def forward():
    # PyTorch's own way to bf16: weights and sums stay f32, operands of convolutions and products are rounded.
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.precision == "bf16"):
        return network()


def network():
    inner = torch.nn.functional.pixel_unshuffle(x, block) if block > 1 else x
    y = model(inner, t, class_labels=label).sample
    return torch.nn.functional.pixel_shuffle(y, block) if block > 1 else y


def step():
    if args.forward_only:
        with torch.no_grad():
            forward()
        return
    optimizer.zero_grad(set_to_none=True)
    forward().float().square().mean().backward()
    optimizer.step()


times = []
for i in range(args.repeat + 2):
    start = time.perf_counter()
    step()
    if i >= 2:
        times.append((time.perf_counter() - start) * 1e3)
ms = statistics.median(times)
print(json.dumps({
    "bench": "forward" if args.forward_only else "train-step",
    "images": args.batch,
    "ms": ms,
    "images_per_second": args.batch / ms * 1e3,
    "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    "threads": args.threads,
    "device": "cpu",
}))
