"""Rules for SAEs and transcoders: encode, decode, loss. Shapes: B tokens, D width, F latents."""

from __future__ import annotations

import torch
from pydantic import ValidationError

from qsae_core.coders.matrix_coder import MatrixCoder
from qsae_core.conformance.cases import Case
from qsae_core.conformance.check import Rules
from qsae_core.conformance.coder_samples import (
    BATCH,
    STEPS,
    Variant,
    buildable,
    built,
    construct,
    data_of,
    shape_of,
    total,
    train,
)
from qsae_core.conformance.general import check_constructs
from qsae_core.conformance.sparsity import expect_well_formed
from qsae_core.conformance.subject import Subject
from qsae_core.conformance.verdicts import (
    CheckFailure,
    copy_of_state,
    expect,
    expect_close,
    expect_equal,
    expect_finite,
    expect_same_state,
)
from qsae_core.contracts.coder import LossOutput
from qsae_core.contracts.data import Batch
from qsae_core.contracts.metric import Observation, observe

RULES = Rules()
FEW = 3
"""Steps of training after which a coder is no longer as it was initialised."""


def trained(subject: Subject, case: Case, coder: MatrixCoder) -> tuple[MatrixCoder, Batch]:
    """The coder after a few steps, in evaluation mode, and a batch that it has not seen."""
    data = data_of(subject, case)
    train(coder, [data.next_batch(BATCH) for _ in range(FEW)])
    return coder.eval(), data.next_batch(33)


@RULES.once("constructs", "the defaults and the sample configurations construct and take their first data.")
def _constructs(subject: Subject) -> None:
    def build(case: Case) -> None:
        coder = construct(subject, Variant(case, {}))
        coder.initialize(data_of(subject, case).next_batch(BATCH))

    check_constructs(subject, build)


@RULES.once("widths", "an SAE has is_autoencoder True; a transcoder False, and works where d_in != d_out.")
def _widths(subject: Subject) -> None:
    coder = built(subject, Variant(subject.cases[0], {}))
    wanted = subject.spec.kind == "sae"
    expect(coder.is_autoencoder is wanted, f"is_autoencoder is {coder.is_autoencoder}.")
    if not wanted:
        shape = shape_of(subject, subject.cases[0])
        expect(shape.d_in != shape.d_out, "its first sample case has equal widths.")


@RULES.each_case("sizes", "expansion stands for n_latents: the same options follow from it and the width.")
def _sizes(subject: Subject, case: Case) -> None:
    coder = built(subject, Variant(case, {}))
    config, d_in = coder.config, coder.shape.d_in
    given = {name: value for name, value in dict(config).items() if name != "n_latents"}
    try:
        asked = type(config)(**{**given, "expansion": config.n_latents / d_in})
        found = asked.for_width(d_in)
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise CheckFailure(
            f"options with an expansion, whose n_latents is not yet known: {reason}."
        ) from error
    expect(found == config, f"{found!r} follows from an expansion, and not {config!r}.")


@RULES.each_case("codes", "encode gives valid SparseCodes with finite values, for one token and for many.")
def _codes(subject: Subject, case: Case) -> None:
    for variant, coder in buildable(subject, case):
        coder, batch = trained(subject, case, coder)
        with torch.no_grad():
            for x in (batch.x, batch.x[:1]):
                codes = coder.encode(x)
                expect_well_formed(codes, len(x), coder.n_latents, f"codes {variant.label}")
                expect_finite(codes.values, f"the codes {variant.label}")


@RULES.each_case(
    "forward", "in evaluation mode decode(encode(x)) equals forward(x) bit for bit, in the target's shape."
)
def _forward(subject: Subject, case: Case) -> None:
    for variant, coder in buildable(subject, case):
        coder, batch = trained(subject, case, coder)
        with torch.no_grad():
            reconstruction = coder(batch.x)
            target = coder.target(batch)
            expect(
                reconstruction.shape == target.shape,
                f"{variant.label} forward gives {list(reconstruction.shape)}; the target is "
                f"{list(target.shape)}.",
            )
            expect_finite(reconstruction, f"the reconstruction {variant.label}")
            expect_equal(
                coder.decode(coder.encode(batch.x)),
                reconstruction,
                f"decode(encode(x)) against forward(x) {variant.label}",
            )


@RULES.each_case("loss", "loss gives finite scalar terms, and target and reconstruction of one shape.")
def _loss(subject: Subject, case: Case) -> None:
    for variant, coder in buildable(subject, case):
        output = coder.loss(data_of(subject, case).next_batch(BATCH))
        expect(len(output.terms) > 0, "there are no loss terms.")
        for name, term in output.terms.items():
            expect(term.dim() == 0, f"the term {name!r} has shape {list(term.shape)} {variant.label}.")
            expect_finite(term.detach(), f"the term {name!r} {variant.label}")
        expect(
            output.target.shape == output.reconstruction.shape,
            f"target {list(output.target.shape)}, reconstruction {list(output.reconstruction.shape)}.",
        )


@RULES.each_case("learns", "20 steps of Adam lower the loss (where a term is ramped up, the squared error).")
def _learns(subject: Subject, case: Case) -> None:
    coder = built(subject, Variant(case, {}))
    batch = data_of(subject, case).next_batch(BATCH)
    outputs = train(coder, [batch] * (STEPS + 1))
    losses = [total(output).item() for output in outputs]
    errors = [_squared_error(output) for output in outputs]
    expect(
        losses[-1] < losses[0] or errors[-1] < errors[0],
        f"the loss goes from {losses[0]:.6g} to {losses[-1]:.6g} "
        f"and the squared error from {errors[0]:.6g} to {errors[-1]:.6g}.",
    )


def _squared_error(output: LossOutput) -> float:
    difference = (output.target - output.reconstruction).detach()
    return difference.double().square().sum().item()


@RULES.each_case(
    "gradients", "the loss reaches every parameter with a finite gradient, but for without_gradient."
)
def _gradients(subject: Subject, case: Case) -> None:
    exempt = set(subject.declares("without_gradient", ()))
    coder = built(subject, Variant(case, {}))
    reached: set[str] = set()

    def note(output: LossOutput) -> None:
        for name, parameter in coder.named_parameters():
            if parameter.grad is not None:
                expect_finite(parameter.grad, f"the gradient of {name}")
                if parameter.grad.any():
                    reached.add(name)

    data = data_of(subject, case)
    train(coder, [data.next_batch(BATCH) for _ in range(STEPS)], each=note)
    missed = {n for n, p in coder.named_parameters() if p.requires_grad} - reached - exempt
    expect(not missed, f"in {STEPS} steps no gradient but zero reached {', '.join(sorted(missed))}.")


@RULES.each_case("eval-keeps-state", "evaluation mode changes no state: no threshold, no counter.")
def _eval_keeps_state(subject: Subject, case: Case) -> None:
    for variant, coder in buildable(subject, case):
        coder, batch = trained(subject, case, coder)
        before = copy_of_state(coder)
        x = batch.x.clone()
        for name in ("encode", "decode", "forward", "loss", "export", "at_level"):
            with torch.no_grad():
                _use(coder, batch, name)
            where = f"{variant.label}, the state after {name} in evaluation mode"
            expect_same_state(copy_of_state(coder), before, where)
        expect_equal(batch.x, x, "the input after encode, decode and loss")


def _use(coder: MatrixCoder, batch: Batch, what: str) -> None:
    if what == "decode":
        coder.decode(coder.encode(batch.x))
    elif what == "export":
        coder.export()
    elif what == "at_level":
        coder.at_level(1)(batch.x)
    elif what == "loss":
        coder.loss(batch)
    else:
        getattr(coder, what)(batch.x)


@RULES.each_case(
    "observation",
    "atom_norms gives the norms of atoms(), atoms_of rows of it, code_levels levels of values; a metric can "
    "observe.",
)
def _observation(subject: Subject, case: Case) -> None:
    coder, batch = trained(subject, case, built(subject, Variant(case, {})))
    observation = observe(coder, batch)
    norms = observation.atom_norms
    expect_finite(norms, "atom_norms")
    expect((norms >= 0).all(), "atom_norms has negative entries.")
    with torch.no_grad():
        atoms = coder.atoms()
    expect(atoms.shape[0] == coder.n_latents, f"atoms() has shape {list(atoms.shape)}, not F rows.")
    shape = atoms.shape[:-1]
    expect(norms.shape == shape, f"atom_norms has shape {list(norms.shape)}, not {list(shape)}.")
    expect(
        torch.allclose(atoms.norm(dim=-1), norms, rtol=1e-4, atol=1e-6),
        "atom_norms are not the norms of the rows of atoms().",
    )
    some = torch.tensor([coder.n_latents - 1, 0, coder.n_latents // 2], device=atoms.device)
    with torch.no_grad():
        expect_close(coder.atoms_of(some), atoms[some], "atoms_of, beside rows of atoms()")
    _expect_levels(observation)


def _expect_levels(observation: Observation) -> None:
    codes, levels = observation.codes, observation.levels
    if levels is None:
        return
    expect(levels.dtype is torch.uint8, f"code_levels gives {levels.dtype}, not uint8.")
    expect(levels.shape == codes.values.shape, f"code_levels has shape {list(levels.shape)}, not [N].")
    expect(torch.equal(levels != 0, codes.active), "code_levels is not 0 exactly where values are.")
    keys, first = torch.unique(codes.indices.long() * 256 + levels, return_inverse=True)
    of_key = torch.empty(len(keys), dtype=codes.values.dtype)
    of_key[first] = codes.values
    expect(torch.equal(of_key[first], codes.values), "one level of one latent stands for different values.")
