"""The networks of the comparison, for both sides: bundles for limbeck's page, ONNX files of the same weights for ONNX Runtime Web.

    python export.py OUT_DIR STUDENT.safetensors [CONFIG.json]

Writes `reference.safetensors` (a bundle with random weights of the network in CONFIG, by default ../configs/reference.json) and, for it
and for the student, `NAME-b1.onnx` and `NAME-b16.onnx`. PyTorch's exporter makes them, one file for each batch: fixed shapes let the peer
plan best. Inputs: `x` [B,C,H,W] f32, `t` [B] f32 (the network's time input), `label` [B] i64; output `y` [B,C,H,W] f32.
"""
import json, shutil, sys, warnings
from pathlib import Path

import torch
from diffusers import UNet2DModel
from safetensors import safe_open
from safetensors.torch import save_file

BATCHES = (1, 16)
HERE = Path(__file__).parent


class Network(torch.nn.Module):
    """A network as limbeck knows it: diffusers' between two pixel (un)shuffles where its configuration has a space-to-depth block."""

    def __init__(self, config):
        super().__init__()
        config = {k: v for k, v in config.items() if k != "_class_name"}
        self.block = config.pop("limbeck_space_to_depth", 1)
        ours = [key for key in config if key.startswith("limbeck_")]
        if ours:
            raise SystemExit(f"this script builds no network with {', '.join(ours)}: name another student")
        config["sample_size"] //= self.block
        config["in_channels"] *= self.block**2
        config["out_channels"] *= self.block**2
        self.unet = UNet2DModel(**config)

    def forward(self, x, t, label):
        if self.block > 1:
            x = torch.nn.functional.pixel_unshuffle(x, self.block)
        y = self.unet(x, t, class_labels=label).sample
        return torch.nn.functional.pixel_shuffle(y, self.block) if self.block > 1 else y


def bundle(config, weights):
    """The metadata that makes of random weights a model that the page draws with: an EDM denoiser, four Euler steps."""
    size, channels, classes = config["sample_size"], config["in_channels"], config["num_class_embeds"]
    training = {"method": "edm", "preset": "reference", "images_seen": 0, "seconds": 0.0, "command": "random weights", "evaluation": {}}
    meta = {
        "version": 1, "name": "reference", "networks": [config],
        "parameterization": {"kind": "edm", "sigma_data": 0.5},
        "schedule": {"kind": "edm", "sigma_min": 0.002, "sigma_max": 80.0, "rho": 7.0},
        "second_time": False, "guidance_input": False,
        "samplers": [{"sampler": "euler", "steps": [4], "default_steps": 4}],
        "classes": [str(k) for k in range(classes)],
        "image": {"channels": channels, "height": size, "width": size, "range": [-1.0, 1.0]},
        "training": training, "licence": "none: random weights",
    }
    return {k: v.half().contiguous() for k, v in weights.items()}, {"format": "pt", "config": json.dumps(config), "limbeck": json.dumps(meta)}


def main(out, student, config):
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    config = json.loads(Path(config).read_text())
    tensors, metadata = bundle(config, Network(config).unet.state_dict())
    save_file(tensors, out / "reference.safetensors", metadata)
    shutil.copy(student, out / "student.safetensors")
    for name in ("reference", "student"):
        with safe_open(out / f"{name}.safetensors", "pt") as file:
            config = json.loads(file.metadata()["config"])
            weights = {key: file.get_tensor(key).float() for key in file.keys()}
        network = Network(config).eval()
        # The half-precision weights of the bundle, in single precision.
        network.unet.load_state_dict(weights)
        for batch in BATCHES:
            x = torch.randn(batch, config["in_channels"], config["sample_size"], config["sample_size"])
            inputs = (x, torch.full((batch,), 0.3), torch.arange(batch) % config["num_class_embeds"])
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                torch.onnx.export(
                    network, inputs, out / f"{name}-b{batch}.onnx", input_names=["x", "t", "label"], output_names=["y"],
                    dynamo=True, external_data=False, verbose=False,
                )
        print(f"{name}: {sum(p.numel() for p in network.parameters())} parameters", file=sys.stderr)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else HERE.parent / "configs/reference.json")
