"""Operations below encode and decode: selection, screens, Adam, nested prefixes, packed rows, kernel sets."""

import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from qsae_quantizers import HalfConfig, SteConfig
from qsae_quantizers.half import Half
from qsae_quantizers.ste import Ste

from qsae_core import kernels
from qsae_core.contracts.codes import SparseCodes
from qsae_core.errors import ConfigError
from qsae_core.kernels import DenseRows, dispatch, lookup
from qsae_core.kernels.packed_rows import MasterRows, PackedRows
from qsae_core.kernels.verification import disagreements


def codes_of(batch, latents, k, seed=0):
    """k random latents a token, with random values."""
    generator = torch.Generator().manual_seed(seed)
    indices = torch.stack([torch.randperm(latents, generator=generator)[:k] for _ in range(batch)])
    return SparseCodes.from_top_k(indices, torch.randn(batch, k, generator=generator), latents)


# --- selection


@settings(max_examples=40)
@given(st.integers(0, 5), st.sampled_from([1, 16, 33, 256, 1024]), st.integers(1, 16), st.integers(0, 99))
def test_top_k_is_that_of_torch(rows, width, k, seed):
    scores = torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))
    k = min(k, width)
    values, columns = kernels.top_k(scores, k)
    assert columns.dtype == torch.int32
    expected = scores.topk(k, dim=1).values
    torch.testing.assert_close(values.sort(dim=1, descending=True).values, expected, rtol=0, atol=0)
    torch.testing.assert_close(scores.gather(1, columns.long()), values, rtol=0, atol=0)


def test_entries_above_a_threshold_by_hand():
    columns, values, offsets = kernels.compress(torch.tensor([[3.0, 1.0, 2.0], [0.0, 0.0, 0.0]]), 1.0)
    assert (columns.tolist(), values.tolist(), offsets.tolist()) == ([0, 2], [3.0, 2.0], [0, 2, 2])


def test_the_largest_of_a_batch_in_chunks_are_those_of_the_whole():
    scores = torch.rand(96, 64, generator=torch.Generator().manual_seed(0)) - 0.3
    selection = kernels.BatchSelection(200)
    from qsae_core.contracts.codes import concatenate

    chunks = concatenate([selection.select(part) for part in scores.split(16)])
    codes = selection.finish(chunks)
    nth = scores.flatten().sort(descending=True).values[199]
    torch.testing.assert_close(codes.to_dense(), torch.where(scores >= nth, scores, 0.0), rtol=0, atol=0)
    assert chunks.values.numel() < (scores > 0).sum(), "the floor rises as chunks come"


def test_a_batch_with_too_few_positive_entries_keeps_those():
    selection = kernels.BatchSelection(5)
    codes = selection.finish(selection.select(torch.tensor([[1.0, -1.0], [0.0, 2.0]])))
    assert codes.to_dense().tolist() == [[1.0, 0.0], [0.0, 2.0]]


# --- screens


@pytest.mark.parametrize("kind", ["bf16", "int8"])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_screen_finds_the_largest(kind, weighted):
    torch.manual_seed(1)
    x, W, bias = torch.randn(50, 96), torch.randn(700, 96), torch.randn(700)
    importance = torch.rand(700) + 0.1 if weighted else None
    candidates = kernels.Screen(kind, W).candidates(x, bias, importance, 32)
    scores = (x @ W.T + bias) * (1.0 if importance is None else importance)
    exact = scores.topk(16, dim=1).indices
    found = (exact[:, :, None] == candidates[:, None, :]).any(2).float().mean()
    assert found > 0.998
    alone = kernels.Screen(kind, W).candidates(x[:1], bias, importance, 32)
    assert alone.shape == (1, 32)


@pytest.mark.parametrize("kind", ["bf16", "int8"])
def test_a_screen_of_blocks_is_that_of_the_whole_matrix(kind):
    W = torch.randn(300, 96, generator=torch.Generator().manual_seed(1))
    whole, in_blocks = kernels.Screen(kind, W), kernels.Screen(kind, iter(W.split(128)), 300)
    assert all(map(torch.equal, whole.prepared, in_blocks.prepared))
    with pytest.raises(ValueError, match="multiples of 64 rows"):
        kernels.Screen(kind, iter(W.split(100)), 300)


def test_an_int8_screen_is_for_the_cpu():
    with pytest.raises(ConfigError, match="runs on the CPU alone, and the coder is on meta"):
        kernels.Screen("int8", torch.empty(8, 4, device="meta"))


# --- the optimiser


def test_adam_is_torchs():
    torch.manual_seed(2)
    ours = torch.randn(300, 40)
    theirs = ours.clone().requires_grad_()
    reference = torch.optim.Adam([theirs], lr=1e-2, betas=(0.8, 0.99))
    moments = torch.zeros_like(ours), torch.zeros_like(ours)
    for step in range(1, 6):
        gradient = torch.randn(300, 40)
        theirs.grad = 0.25 * gradient
        reference.step()
        options = {"lr": 1e-2, "beta1": 0.8, "beta2": 0.99, "eps": 1e-8, "step": step}
        kernels.adam(ours, gradient, *moments, **options, grad_scale=0.25, unit_rows=False)
    torch.testing.assert_close(ours, theirs.detach(), rtol=1e-5, atol=1e-6)


def test_projection_by_hand():
    # (3, 4) without its part along (1, 0) is (0, 4); the squares that are left sum to 16 + 1
    gradient, weight = torch.tensor([[3.0, 4.0], [1.0, 5.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert kernels.project_rows(gradient, weight) == pytest.approx(17.0)
    assert gradient.tolist() == [[0.0, 4.0], [1.0, 0.0]]


# --- nested prefixes


def test_prefix_errors_equal_those_of_dense_autograd():
    torch.manual_seed(3)
    prefixes, codes = [5, 12, 40], codes_of(20, 40, 6)
    values = codes.values.double().requires_grad_()
    W, target = (torch.randn(n, 7, dtype=torch.float64, requires_grad=True) for n in (40, 20))
    weights = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)

    parts = kernels.decode_groups(codes.with_values(values), W, prefixes)
    errors, whole = kernels.prefix_errors(parts, target)
    sparse = torch.autograd.grad((errors * weights).sum(), [values, W, target])

    dense = codes.with_values(values).to_dense()
    expected = torch.stack([(target - dense[:, :p] @ W[:p]).square().sum(1).mean() for p in prefixes])
    torch.testing.assert_close(errors, expected)
    torch.testing.assert_close(whole, (dense @ W).detach())
    autograds = torch.autograd.grad((expected * weights).sum(), [values, W, target])
    for one, other in zip(sparse, autograds, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


# --- rows of quantized matrices

GRIDS = {
    "ternary": SteConfig(),
    "binary": SteConfig(grid="binary"),
    "2 bits": SteConfig(n_bits=2),
    "3 bits": SteConfig(n_bits=3),
    "4 bits": SteConfig(n_bits=4),
    "8 bits": SteConfig(n_bits=8),
    "one scale": SteConfig(n_bits=4, granularity="tensor"),
    "groups": SteConfig(n_bits=4, granularity="group", group_size=4),
}


def test_rows_of_16_bits_are_widened_a_few_at_a_time(monkeypatch):
    torch.manual_seed(3)
    weight, x, bias = torch.randn(9000, 8), torch.randn(5, 8), torch.randn(9000)
    quantizer = Half(HalfConfig(dtype="bfloat16"), (9000, 8))
    rows, found = PackedRows(quantizer.pack(weight), quantizer, "exact"), torch.empty(5, 9000)
    monkeypatch.setattr(rows, "dense", lambda: pytest.fail("the whole matrix was widened"))
    rows.pre_activations(x, bias, found)
    expected = x.double() @ weight.bfloat16().double().T + bias
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("width", [20, 64])
def test_packed_rows_give_the_bits_of_the_unpacked_matrix(grid, width):
    torch.manual_seed(4)
    quantizer = Ste(GRIDS[grid], (200, width)).eval()
    packed = quantizer.pack(torch.randn(200, width))
    matrix = quantizer.unpack(packed)
    rows, codes = PackedRows(packed, quantizer, "exact"), codes_of(30, 200, 5)
    left = torch.randn(30, width)
    assert torch.equal(quantizer.unpack_rows(packed, torch.tensor([7, 3, 199])), matrix[[7, 3, 199]])
    reference = DenseRows(matrix)
    assert torch.equal(rows.product(codes, codes.values), reference.product(codes, codes.values))
    assert torch.equal(rows.dots(left, codes), reference.dots(left, codes))
    assert torch.equal(rows.norms(), matrix.norm(dim=1))
    assert torch.equal(quantizer.lookup(packed).matrix(), matrix)


@pytest.mark.parametrize("grid", [grid for grid in GRIDS if grid != "groups"])
def test_fast_arithmetic_differs_by_rounding_alone(grid):
    torch.manual_seed(5)
    quantizer = Ste(GRIDS[grid], (400, 64)).eval()
    packed = quantizer.pack(torch.randn(400, 64))
    codes = codes_of(30, 400, 16)
    with kernels.torch_only():
        fast = PackedRows(packed, quantizer, "fast").product(codes, codes.values)
        exact = PackedRows(packed, quantizer, "exact").product(codes, codes.values)
    error = (fast - exact).norm() / exact.norm()
    assert 0 < error < 1e-6


def test_groups_of_columns_are_unpacked_for_products():
    torch.manual_seed(5)
    quantizer = Ste(GRIDS["groups"], (400, 64)).eval()
    packed = quantizer.pack(torch.randn(400, 64))
    codes = codes_of(30, 400, 16)
    product = PackedRows(packed, quantizer, "fast").product(codes, codes.values)
    assert torch.equal(product, DenseRows(quantizer.unpack(packed)).product(codes, codes.values))


def test_unevenly_spaced_points_have_no_byte_rows():
    codes, scales = torch.zeros(3, 8, dtype=torch.uint8), torch.ones(3)
    assert lookup.byte_rows(codes, torch.tensor([-1.0, -0.2, 1.0]), scales) is None


def test_a_packed_decoder_passes_the_gradient_to_the_codes():
    quantizer = Ste(SteConfig(), (50, 16)).eval()
    packed = quantizer.pack(torch.randn(50, 16))
    codes = codes_of(4, 50, 3)
    gradients = []
    for matrix in (PackedRows(packed, quantizer, "exact"), quantizer.unpack(packed)):
        values = codes.values.clone().requires_grad_()
        kernels.decode(codes.with_values(values), matrix).square().sum().backward()
        gradients.append(values.grad)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-6, atol=1e-6)


def test_training_quantizes_the_touched_rows_alone_and_gets_the_same_gradient(monkeypatch):
    torch.manual_seed(6)
    quantizer = Ste(SteConfig(n_bits=4), (400, 24))
    master = torch.nn.Parameter(torch.randn(400, 24))
    codes = codes_of(8, 400, 3)
    quantized_rows = []
    whole = quantizer.fake_quantize
    monkeypatch.setattr(quantizer, "fake_quantize", lambda w: quantized_rows.append(len(w)) or whole(w))
    out = kernels.decode(codes, MasterRows(master, quantizer))
    (gradient,) = torch.autograd.grad(out.square().sum(), master)
    assert quantized_rows == [len(codes.indices.unique())]
    expected = kernels.decode(codes, whole(master))
    (reference,) = torch.autograd.grad(expected.square().sum(), master)
    # sums over fewer rows are rounded otherwise, and may move a float16 scale by its last bit
    torch.testing.assert_close(out, expected, rtol=2e-3, atol=2e-3)
    torch.testing.assert_close(gradient, reference, rtol=2e-3, atol=2e-3)
    untouched = torch.ones(400, dtype=torch.bool)
    untouched[codes.indices.long()] = False
    assert not gradient[untouched].any()


# --- kernel sets


def test_torchs_own_operations_agree_with_themselves():
    functions = {name: o.torch_implementation for name, o in kernels.OPERATIONS.items()}
    assert disagreements(functions, "cpu") == {}


def test_what_is_in_use_takes_no_part_in_a_comparison():
    def in_use(*arguments, **options):
        raise AssertionError("not what is compared")

    functions = {name: o.torch_implementation for name, o in kernels.OPERATIONS.items()}
    with dispatch.only("cpu", dict.fromkeys(kernels.OPERATIONS, in_use)):
        assert disagreements(functions, "cpu") == {}


WRONG = {
    "top_k": lambda scores, k: (scores[:, :k], torch.arange(k, dtype=torch.int32).expand(len(scores), k)),
    "gather_dot": lambda left, right, indices, offsets: torch.zeros(indices.numel()),
    "sparse_product": lambda *a: kernels.sparse_product.torch_implementation(*a) * 1.001,
    "transpose_codes": lambda i, o, n: (i, torch.arange(len(i)), torch.zeros(n + 1, dtype=torch.int64)),
    "compress": lambda scores, threshold: kernels.compress.torch_implementation(scores, threshold + 0.1),
    "project_rows": lambda grad, weight: 0.0,
    "adam": lambda *a, **options: None,
    "screen": lambda prepared, x, bias, weights, m: torch.arange(m, dtype=torch.int32).expand(len(x), m),
    "expand_rows": lambda indices, offsets, values, out: out,
    "collect_rows": lambda dense, indices, offsets: dense.flatten()[: indices.numel()],
    "ternary_scales": lambda magnitudes: magnitudes.mean(1),
    "lookup_product": lambda *a: 2 * kernels.lookup_product.torch_implementation(*a),
}
BESIDE = {"screen": ["screen_prepare"], "lookup_product": ["lookup_pack", "lookup_gather_dot"]}


@pytest.mark.parametrize("name", WRONG)
def test_an_operation_that_does_something_else_is_refused(name):
    beside = {n: kernels.OPERATIONS[n].torch_implementation for n in BESIDE.get(name, [])}
    assert name in disagreements({name: WRONG[name], **beside}, "cpu")


def test_half_a_pair_an_unknown_name_and_a_raising_one_are_refused():
    def broken(*_):
        raise ZeroDivisionError("by zero")

    found = disagreements({"screen": broken, "nonsense": broken, "top_k": broken}, "cpu")
    assert found["screen"] == "it needs screen_prepare beside it"
    assert found["nonsense"] == "there is no such operation"
    assert found["top_k"] == "it raises ZeroDivisionError: by zero"


def test_a_compiled_operation_runs_for_float32_on_its_device_alone():
    seen = []

    def compiled(scores, k):
        seen.append(scores.dtype)
        return kernels.top_k.torch_implementation(scores, k)

    with kernels.torch_only():
        dispatch.install("cpu", {"top_k": compiled})
        assert kernels.installed("top_k", "cpu")
        kernels.top_k(torch.rand(2, 8), 2)
        kernels.top_k(torch.rand(2, 8, dtype=torch.float64), 2)
        kernels.top_k(torch.rand(8, 2).T, 2)
        kernels.uninstall()
    assert seen == [torch.float32]


# --- memory that is used again


def test_a_gradient_is_used_again_and_no_more_are_kept_than_were_made():
    like = torch.empty(0)
    made = [dispatch.reused((37, 11), like) for _ in range(2)]
    places = {tensor.data_ptr() for tensor in made}
    elsewhere = [torch.empty(37, 11) for _ in range(5)]
    for tensor in (*made, *elsewhere, torch.empty(38, 11)):
        kernels.recycle(tensor)
    assert {dispatch.reused((37, 11), like).data_ptr() for _ in range(2)} == places
    assert dispatch.reused((37, 11), like).data_ptr() not in places
    assert dispatch.reused((38, 11), like).shape == (38, 11)


def test_shapes_that_are_not_asked_for_any_more_are_let_go():
    like = torch.empty(0)
    first = dispatch.reused((41, 3), like)
    kernels.recycle(first)
    for rows in range(dispatch.MOST_KINDS):
        kernels.recycle(dispatch.reused((rows + 1, 5), like))
    where = weakref.ref(first)
    del first
    assert where() is None
