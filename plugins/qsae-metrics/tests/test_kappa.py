"""The values of ``kappa``, by hand, and its prediction where the assumption behind it holds."""

from __future__ import annotations

import pytest
import torch
from qsae_metrics import KappaConfig
from qsae_metrics.prediction import Kappa
from torch import Tensor

from qsae_core.coders.serving import squared_sines
from qsae_core.compose.compose import compose_coder
from qsae_core.config.layers import Layer
from qsae_core.config.run import resolve
from qsae_core.contracts.coder import AtomErrors, CoderShape
from qsae_core.contracts.codes import SparseCodes
from qsae_core.contracts.metric import Observation
from qsae_core.plugins.records import load_plugins


def observation(x: Tensor, dense: Tensor, norms: Tensor, errors: Tensor | None = None) -> Observation:
    """``norms`` are those before quantization, where errors are known; after it they are a third."""
    if errors is None:
        return Observation(x, x, SparseCodes.from_dense(dense), norms)
    return Observation(x, x, SparseCodes.from_dense(dense), norms / 3, atom_errors=AtomErrors(errors, norms))


def measure(*observations: Observation) -> dict[str, float | None]:
    metric = Kappa(KappaConfig())
    for each in observations:
        metric.update(each)
    return metric.compute()


X = torch.tensor([[2.0, 0.0], [0.0, 4.0]])
"""Mean (1, 2), squares about it sum to 10."""
CODES = torch.tensor([[1.0, 0.0, 0.0], [2.0, -3.0, 0.0]])
NORMS = torch.tensor([1.0, 0.5, 9.0])


def test_by_hand() -> None:
    """Energies: (1 + 4) * 1 = 5, 9 / 4, 0."""
    errors = torch.tensor([0.1, 0.4, 0.7], dtype=torch.float64)
    values = measure(observation(X, CODES, NORMS, errors))
    assert values["kappa"] == pytest.approx(7.25 / 10)
    assert values["weight_error"] == pytest.approx((5 * 0.1 + 2.25 * 0.4) / 7.25)
    assert values["weight_error_unweighted"] == pytest.approx(0.4)
    assert values["predicted_delta_fvu"] == pytest.approx((0.5 + 0.9) / 10)


def test_several_layers_by_hand() -> None:
    """Layer 1 is ten times X, and the atoms there have norms 20, 0 and 0: energies 5 * 400 over 1000."""
    x = torch.stack([X, 10 * X], 1)
    norms = torch.stack([NORMS, torch.tensor([20.0, 0.0, 0.0])], 1)
    errors = torch.tensor([0.1, 0.4, 0.7], dtype=torch.float64)
    values = measure(observation(x, CODES, norms, errors))
    # shares of the variance: latent 0 (5 / 10 + 2000 / 1000) / 2, latent 1 (2.25 / 10 + 0) / 2
    assert values["kappa"] == pytest.approx(1.25 + 0.1125)
    assert values["weight_error"] == pytest.approx((1.25 * 0.1 + 0.1125 * 0.4) / 1.3625)
    assert values["predicted_delta_fvu"] == pytest.approx(0.125 + 0.045)


def test_batches_add_up() -> None:
    errors = torch.tensor([0.1, 0.4, 0.7], dtype=torch.float64)
    parts = [observation(X[i : i + 1], CODES[i : i + 1], NORMS, errors) for i in range(2)]
    assert measure(*parts) == pytest.approx(measure(observation(X, CODES, NORMS, errors)))


def test_without_the_atoms_before_quantization() -> None:
    values = measure(observation(X, CODES, NORMS))
    assert values["kappa"] == pytest.approx(0.725)
    assert values["weight_error"] is None
    assert values["predicted_delta_fvu"] is None


def test_without_variance_or_energy() -> None:
    silent = measure(observation(X, torch.zeros(2, 3), NORMS, torch.zeros(3, dtype=torch.float64)))
    assert silent["kappa"] == 0
    assert silent["weight_error"] is None
    constant = measure(observation(X[:1].repeat(2, 1), CODES, NORMS))
    assert constant["kappa"] is None


def test_squared_sines_by_hand() -> None:
    """(3, 4) and (3, 0): cos = 3/5. A lost row is an error of 1, a row that was zero before none."""
    a = torch.tensor([[3.0, 4.0], [1.0, 2.0], [1.0, 0.0], [0.0, 0.0]])
    b = torch.tensor([[3.0, 0.0], [2.0, 4.0], [0.0, 0.0], [0.0, 0.0]])
    assert squared_sines(a, b).tolist() == pytest.approx([16 / 25, 0, 1, 0], abs=1e-12)


def test_the_prediction_holds_where_errors_are_unrelated() -> None:
    """Gaussian atoms whose signs alone are kept, scaled best; independent codes that reconstruct exactly."""
    generator = torch.Generator().manual_seed(0)
    atoms = torch.randn(64, 128, generator=generator, dtype=torch.float64)
    atoms /= atoms.norm(dim=1, keepdim=True)
    rounded = atoms.sign() * atoms.abs().mean(1, keepdim=True)
    codes = torch.rand(4000, 64, generator=generator, dtype=torch.float64)
    codes *= torch.rand(4000, 64, generator=generator) < 0.1
    x = codes @ atoms
    error = codes @ (atoms - rounded)
    measured = error.square().sum() / (x - x.mean(0)).square().sum()
    values = measure(observation(x, codes, atoms.norm(dim=1), squared_sines(atoms, rounded)))
    assert values["weight_error_unweighted"] == pytest.approx(1 - 2 / torch.pi, abs=0.01)
    assert values["predicted_delta_fvu"] == pytest.approx(measured.item(), rel=0.05)


@pytest.mark.parametrize("grid", ["binary", "ternary"])
def test_what_a_coder_says_of_its_atoms_predicts_what_rounding_costs(grid: str) -> None:
    """Through a coder's own ``atom_errors``: rounded atoms are shorter than those that they were."""
    tree = {"sae": {"use": "topk", "n_latents": 64, "normalize": "none", "rotate": False}}
    tree |= {"sparsity": {"use": "topk", "k": 6}, "quantizer": {"use": "ste", "grid": grid}}
    registry = load_plugins().registry
    coder = compose_coder(resolve([Layer(tree, "test")], registry), registry, CoderShape(128, 128)).eval()
    coder.begin_quantization()
    generator = torch.Generator().manual_seed(0)
    codes = torch.rand(4000, 64, generator=generator) * (torch.rand(4000, 64, generator=generator) < 0.1)
    with torch.no_grad():
        atoms, rounded = coder.W_dec.master.double(), coder.dictionary().double()
        x = codes.double() @ atoms
        cost = (codes.double() @ (atoms - rounded)).square().sum() / (x - x.mean(0)).square().sum()
        seen = Observation(x, x, SparseCodes.from_dense(codes), coder.atom_norms())
        values = measure(seen._replace(atom_errors=coder.atom_errors()))
    assert values["predicted_delta_fvu"] == pytest.approx(cost.item(), rel=0.05)
