"""The fused inner block against the plain one in float64: outputs and every gradient.

Without a GPU the kernels run in Triton's interpreter (tests/conftest.py), which takes a few shapes; with one,
all shapes are compiled and run.
"""

import copy
import itertools
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import tnt
from tnt import TNT
from tnt.block import TransformerBlock
from tnt.fused.tiles import tile_for

GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
DTYPE = torch.float32 if GPU else torch.float64  # as exact as it gets there
WORDS, WIDTHS = (4, 16, 64), (6, 12, 24, 40, 96)
ALL = [(m, c, h) for m, c, h in itertools.product(WORDS, WIDTHS, range(1, 9))
       if c % h == 0 and (m, c) != (64, 96)]  # fmt: skip
FEW = [(4, 6, 3), (4, 12, 4), (4, 96, 8), (16, 6, 2), (16, 12, 6), (16, 24, 4), (16, 40, 5), (16, 24, 1),
       (64, 6, 1), (64, 24, 8), (64, 12, 2), (9, 10, 5)]  # fmt: skip


@pytest.fixture
def poison():
    """Memory that nobody wrote reads as NaN."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    assert torch.empty(3, device=DEVICE).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


def block_of(c: int, heads: int) -> TransformerBlock:
    torch.manual_seed(1)
    block = TransformerBlock(c, heads, 4, 0.0, gated=False)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return block.to(DEVICE, torch.float64)


def plain(block: TransformerBlock, words: Tensor, kept: Tensor, norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
    """The block with given factors of drop path, and the LayerNorm after it."""
    first, second = kept[:, :, None, None].unbind(0)
    words = words + first * block.attn(block.norm1(words))
    words = words + second * block.mlp(block.norm2(words))
    return words, norm(words.flatten(1)).view_as(words)


def fused(block, words, kept, norm, dtype):
    from tnt.fused.ops import inner

    weights = list(block.parameters())
    return inner(words, kept, weights, norm.weight, norm.bias, block.attn.heads, dtype)


def gradients(function, block, words, kept, norm, seeds) -> list[Tensor]:
    """Outputs, and the gradients of the words and of every weight."""
    dtype = words.dtype
    block, norm = copy.deepcopy(block).to(dtype), copy.deepcopy(norm).to(dtype)
    words = words.clone().requires_grad_()
    outputs = function(block, words, kept, norm)
    torch.autograd.backward(outputs, [seed.to(out.dtype) for seed, out in zip(seeds, outputs, strict=True)])
    every = [*block.parameters(), *norm.parameters()]
    return [*(out.detach() for out in outputs), words.grad, *(p.grad for p in every)]


def cases() -> list[tuple[int, int, int, torch.dtype]]:
    """As exact as the device is for a few shapes; rounded to bf16, as runs are, for all that compile."""
    rounded = ALL if GPU else [(4, 96, 8), (16, 24, 4)]
    return [(*shape, DTYPE) for shape in FEW] + [(*shape, torch.bfloat16) for shape in rounded]


def named(case: tuple[int, int, int, torch.dtype]) -> str:
    """16x24x4-bfloat16; benchmarks/gpu.sh deals the shapes out by their heads."""
    return f"{'x'.join(map(str, case[:3]))}-{str(case[3]).removeprefix('torch.')}"


@pytest.mark.slow
@pytest.mark.parametrize(("m", "c", "heads", "dtype"), cases(), ids=map(named, cases()))
def test_outputs_and_every_gradient_are_those_of_the_plain_block(m, c, heads, dtype, poison):
    block = block_of(c, heads)
    norm = nn.LayerNorm(m * c).to(DEVICE, torch.float64)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    patches = 2 * (tile_for(m, c, heads).R // m) + 1  # three tiles for two programs, the last nearly empty
    make = {"device": DEVICE, "dtype": torch.float64}
    words = torch.randn(patches, m, c, **make)
    kept = torch.rand(2, patches, **make).sub(0.3).clamp(min=0) * 2
    seeds = torch.randn(2, patches, m, c, **make).unbind(0)
    expected = gradients(plain, block, words, kept, norm, seeds)
    held = torch.float64 if dtype == torch.float64 else torch.float32  # as under autocast
    found = gradients(partial(fused, dtype=dtype), block, words.to(held), kept.to(held), norm, seeds)
    allowed = [{torch.float64: 1e-11, torch.float32: 2e-5}.get(dtype, 0.0)] * len(found)
    if dtype == torch.bfloat16:  # what PyTorch's own rounding does to the same block
        with torch.autocast(DEVICE, torch.bfloat16):
            rounded = gradients(plain, block, words.float(), kept.float(), norm, seeds)
        slack = 1.5 if GPU else 4.0  # the interpreter cuts off what a GPU rounds
        allowed = [slack * gap + 5e-3 for gap in gaps(rounded, expected)]
    for name, gap, most in zip(names(block), gaps(found, expected), allowed, strict=True):
        assert gap < most, f"{name}: {gap:.1e}"


def gaps(ours: list[Tensor], theirs: list[Tensor]) -> list[float]:
    """Relative, root of mean square."""
    return [((a.double() - b).norm() / b.norm()).item() for a, b in zip(ours, theirs, strict=True)]


def names(block: nn.Module) -> list[str]:
    weights = [f"gradient of {name}" for name, _ in block.named_parameters()]
    return ["words", "normed", "gradient of words", *weights, "gradient of gain", "gradient of bias"]


def pair(tiny, **changes) -> tuple[TNT, TNT]:
    """The same network twice, the second with fused kernels."""
    a = tiny(**{"depth": 1, **changes}).to(DEVICE).train()
    b = copy.deepcopy(a)
    b.set_kernels("fused")
    return a, b


def trained(model: TNT, images: Tensor, autocast: bool = False) -> tuple[Tensor, list[Tensor]]:
    """Logits and gradients, with the same paths dropped at every call."""
    torch.manual_seed(7)
    with torch.autocast(DEVICE, torch.bfloat16, enabled=autocast):
        logits = model(images)
    (logits.to(DTYPE) ** 2).sum().backward()
    return logits.detach(), [p.grad for p in model.parameters()]


def images_for(dtype: torch.dtype = DTYPE) -> Tensor:
    torch.manual_seed(3)
    return torch.randn(2, 3, 16, 24, dtype=dtype, device=DEVICE)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"drop_path": 0.4, "depth": 2},
        {"form": "legacy"},
        {"se": "outer", "patch_dim": 12, "outer_heads": 4},
        {
            "word_position": False,
        },
    ],
    ids=str,
)
def test_a_network_computes_the_same_with_either_kernels(tiny, changes, poison):
    a, b = (model.to(DTYPE) for model in pair(tiny, **changes))
    logits, plain_gradients = trained(a, images_for())
    found, fused_gradients = trained(b, images_for())
    close = {"rtol": 1e-9, "atol": 1e-9} if torch.float64 == DTYPE else {"rtol": 1e-3, "atol": 1e-3}
    torch.testing.assert_close(found, logits, **close)
    torch.testing.assert_close(fused_gradients, plain_gradients, **close)


def test_it_is_really_the_kernels_that_ran(tiny, monkeypatch):
    def refuse(*inputs):
        raise RuntimeError("the kernels")

    _, b = pair(tiny)
    monkeypatch.setattr("tnt.fused.ops.inner", refuse)
    with pytest.raises(RuntimeError, match="the kernels"):
        b(images_for(torch.float32))


def test_under_autocast_fused_is_no_farther_from_the_truth_than_plain(tiny):
    a, b = pair(tiny)
    images = images_for(torch.float32)
    truth, _ = trained(copy.deepcopy(a).double(), images.double())
    by_plain, _ = trained(a, images, autocast=True)
    by_fused, gradients = trained(b, images, autocast=True)
    assert by_fused.dtype == torch.bfloat16
    assert all(gradient.dtype == torch.float32 for gradient in gradients)
    assert by_fused.ne(by_plain).any()
    assert (by_fused - truth).square().mean() < 1.5 * (by_plain - truth).square().mean()


@pytest.mark.slow
def test_with_checkpointing_the_gradients_are_the_same_bit_by_bit(tiny):
    _, b = pair(tiny, drop_path=0.3, depth=2)
    again = copy.deepcopy(b)
    again.set_grad_checkpointing()
    images = images_for(torch.float32)
    for ours, theirs in zip(trained(again, images)[1], trained(b, images)[1], strict=True):
        assert ours.equal(theirs)


@pytest.mark.slow
def test_the_rest_compiles_without_a_break(tiny):
    """What torch.compile sees, derivative and all; that it also makes code of it takes half a minute more."""
    _, b = pair(tiny)
    images = images_for(torch.float32)
    logits, gradients = trained(b, images)
    again = copy.deepcopy(b)
    again.zero_grad()
    found, found_gradients = trained(torch.compile(again, backend="aot_eager", fullgraph=True), images)
    torch.testing.assert_close(found, logits)
    torch.testing.assert_close(found_gradients, gradients)


def test_the_operators_keep_pytorchs_rules():
    """Those that torch.compile takes; their derivatives stand around them."""
    import tnt.fused.ops  # noqa: F401

    block, norm = block_of(6, 3).float().requires_grad_(False), torch.rand(2, 24, device=DEVICE)
    words, weights = torch.randn(5, 4, 6, device=DEVICE), list(block.parameters())
    rows, patches = torch.randn(2, 5, 24, device=DEVICE), torch.randn(2, 6, 24, device=DEVICE)
    operators = torch.ops.tnt
    for operator, inputs in {
        operators.inner: (words, None, weights, *norm, 3, torch.float32),
        operators.inner_backward: (words, words.clone(), None, weights, 3, torch.float32),
        operators.enrich: (patches, rows, *norm),
        operators.row_norm_backward: (patches, rows, None, norm[0], 6),
    }.items():
        torch.library.opcheck(operator, inputs)


def test_backward_keeps_the_input_and_the_output_and_nothing_between(tiny):
    _, b = pair(tiny)
    block = b.blocks[0]
    words = torch.randn(18, 16, 6, device=DEVICE, requires_grad=True)
    patches = torch.randn(2, 10, 10, device=DEVICE, requires_grad=True)
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            kept[tensor.untyped_storage().data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        block.inner_fused(words, patches)
    update = 2 * 9 * 10
    weight_of_product = block.to_patch.proj.weight.numel()
    assert sum(kept.values()) <= 3 * words.numel() + update + weight_of_product  # in, out, out normed


def test_an_export_holds_no_operator_of_ours(tiny):
    _, b = pair(tiny)
    program = torch.export.export(b.eval(), (images_for(torch.float32),))
    assert "tnt." not in program.graph_module.code
    logits = program.module()(images_for(torch.float32))
    torch.testing.assert_close(logits, b(images_for(torch.float32)), rtol=1e-4, atol=1e-4)


def curve(model: TNT, steps: int, batch: int, lr: float, autocast: bool) -> list[float]:
    """Losses of training on a fixed small set of random images, which can be learnt by heart."""
    edge, classes = model.config.image_size, model.config.classes
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(4 * batch, 3, edge, edge, generator=draw).to(DEVICE)
    labels = torch.randint(0, classes, (4 * batch,), generator=draw).to(DEVICE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    losses = []
    for step in range(steps):
        part = slice(step % 4 * batch, (step % 4 + 1) * batch)
        torch.manual_seed(step)
        with torch.autocast(DEVICE, torch.bfloat16, enabled=autocast):
            loss = F.cross_entropy(model(images[part]).float(), labels[part])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.slow
def test_a_short_training_shows_the_same_losses(tiny):
    a, b = pair(tiny, image_size=16)
    by_plain, by_fused = (curve(model, 5, 2, 1e-2, autocast=False) for model in (a, b))
    assert by_fused == pytest.approx(by_plain, rel=1e-3)
    assert by_plain[-1] < by_plain[0]


@pytest.mark.gpu
@pytest.mark.skipif(not GPU, reason="needs a CUDA device")
def test_tnt_s_trained_200_steps_shows_the_same_losses():
    """Within the noise of bf16: no farther apart than plain bf16 is from plain fp32."""
    torch.manual_seed(0)
    start = tnt.create_model("tnt_s", classes=10, drop_path=0.1).to(DEVICE).train()
    runs = {}
    for name, kernels, autocast in (
        ("fp32", "torch", False),
        ("plain", "torch", True),
        ("fused", "fused", True),
    ):
        model = copy.deepcopy(start)
        model.set_kernels(kernels)
        runs[name] = torch.tensor(curve(model, 200, 64, 3e-4, autocast))
    smooth = {name: losses.unfold(0, 20, 20).mean(1) for name, losses in runs.items()}
    noise = (smooth["plain"] - smooth["fp32"]).abs().max().item()
    assert (smooth["fused"] - smooth["plain"]).abs().max().item() < max(2 * noise, 0.05)
