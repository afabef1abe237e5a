"""All commands under one name: `tnt predict photos/`, `tnt launch ablation=all`."""

import difflib
import runpy
import sys

COMMANDS = {
    "predict": ("tnt.predict", "classify images"),
    "features": ("tnt.features", "features of images, as .npz or .safetensors"),
    "figures": ("tnt.figures", "the paper's pictures, attention, Grad-CAM"),
    "complexity": ("tnt.complexity", "parameters and multiply-adds of every network in the paper"),
    "weights": ("tnt.weights", "translate weights between the published formats"),
    "export": ("tnt.export", "ONNX, torch.export, timm, a hub's folder"),
    "shards": ("pipeline.shards", "pack, index, verify and describe data sets"),
    "train": ("pipeline.train", "train one run"),
    "evaluate": ("pipeline.evaluate", "measure a run, or weights"),
    "audit": ("pipeline.audit", "replay a part of a finished run, and compare"),
    "launch": ("pipeline.launch", "plan, start and watch runs, here or on Slurm"),
    "report": ("ablations.report", "the paper's tables beside what was measured"),
}


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        print("usage: tnt COMMAND [--help] …\n")
        print("\n".join(f"  {each:11} {what}" for each, (_, what) in COMMANDS.items()))
        return
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        print(f"error: unknown command {name!r}{hint}: valid are {', '.join(COMMANDS)}", file=sys.stderr)
        sys.exit(2)
    module, _ = COMMANDS[name]
    del sys.argv[1]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except ModuleNotFoundError as missing:
        if str(missing.name).startswith(("tnt", "pipeline", "ablations")):
            raise
        print(f"error: {missing.name} is needed for this: pip install 'tnt-lab[all]'", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
