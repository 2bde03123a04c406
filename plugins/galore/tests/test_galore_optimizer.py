"""The optimizer of GaLore: what theory says about its updates, and when it projects anew."""

import pytest
import torch

from llmtune.testing import one_thread
from llmtune_plugin_galore._few_bits import pack, unpack
from llmtune_plugin_galore._moments import Moments
from llmtune_plugin_galore._optimizer import GaloreAdamW
from llmtune_plugin_galore._projection import Projection, basis_shapes
from llmtune_plugin_galore.options import GaloreOptions

KINDS = ["std", "reverse_std", "right", "left", "full"]


@pytest.fixture(autouse=True)
def _one_thread():
    with one_thread():
        yield


@pytest.fixture
def random():
    generator = torch.Generator().manual_seed(0)
    return lambda *shape: torch.randn(*shape, generator=generator)


def optimizer(weight, *, lr=1e-2, eps=1e-8, weight_decay=0.0, scale=1.0, **options):
    group = {"params": [weight], "projected": True, "scale": scale, "weight_decay": weight_decay}
    projection = Projection(GaloreOptions(**{f"galore_{name}": value for name, value in options.items()}))
    return GaloreAdamW([group], projection, Moments(), lr=lr, betas=(0.9, 0.95), eps=eps)


def follow(weight, made, gradients):
    """Give the optimizer one gradient after the other and yield its state after each."""
    for gradient in gradients:
        weight.grad = gradient.clone()
        made.step()
        yield {key: value.clone() for key, value in made.state[weight].items()}


def both(shape, gradients, *, lr, eps, **options):
    """Return the weights after GaLore's steps and after those of torch's AdamW."""
    mine, theirs = (torch.nn.Parameter(torch.ones(shape)) for _ in range(2))
    made = optimizer(mine, lr=lr, eps=eps, weight_decay=0.1, update_proj_gap=1000, rank=min(shape), **options)
    adamw = torch.optim.AdamW([theirs], lr=lr, betas=(0.9, 0.95), eps=eps, weight_decay=0.1)
    for gradient in gradients:
        mine.grad, theirs.grad = gradient.clone(), gradient.clone()
        made.step()
        adamw.step()
    return mine.detach(), theirs.detach()


# --- against AdamW --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_along_the_axes_and_at_full_rank_it_is_adamw(random, kind):
    """Singular vectors of a diagonal gradient are axes up to sign and order, which Adam does not see."""
    first = torch.diag(torch.tensor([3.0, -5.0, 2.0, 7.0, 1.0, -4.0]))
    gradients = [first, *(random(6, 6) for _ in range(10))]
    mine, theirs = both((6, 6), gradients, lr=1e-2, eps=1e-8, proj_type=kind)
    torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_where_adam_is_linear_any_orthogonal_projection_gives_adamw(random, kind):
    """With an epsilon far above the gradients the update is the first moment: P(P^T G) = G at full rank."""
    gradients = [random(6, 6) for _ in range(10)]
    mine, theirs = both((6, 6), gradients, lr=1e6, eps=1e7, proj_type=kind)
    assert (theirs - 1).abs().max() > 0.1
    torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", [(9, 4), (4, 9)])
def test_std_loses_nothing_of_a_matrix_at_the_rank_of_its_shorter_side(random, shape):
    gradients = [random(*shape) for _ in range(10)]
    mine, theirs = both(shape, gradients, lr=1e6, eps=1e7, proj_type="std")
    torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)


def test_a_parameter_that_is_not_projected_is_updated_as_by_adamw(random):
    mine, theirs = (torch.nn.Parameter(torch.ones(5, 3)) for _ in range(2))
    made = optimizer(mine, weight_decay=0.1)
    made.param_groups[0]["projected"] = False
    adamw = torch.optim.AdamW([theirs], lr=1e-2, betas=(0.9, 0.95), weight_decay=0.1)
    for _ in range(10):
        mine.grad = random(5, 3)
        theirs.grad = mine.grad.clone()
        made.step()
        adamw.step()
    torch.testing.assert_close(mine, theirs, atol=1e-7, rtol=1e-6)


def test_the_update_stays_in_the_space_of_the_projection(random):
    weight = torch.nn.Parameter(torch.zeros(12, 7))
    made = optimizer(weight, rank=2, update_proj_gap=1000)
    (*_, state) = follow(weight, made, [random(12, 7) for _ in range(5)])
    basis = state["right"]
    assert torch.linalg.matrix_rank(weight) == 2
    torch.testing.assert_close(weight @ basis @ basis.T, weight.detach(), atol=1e-6, rtol=1e-5)


# --- shapes and time ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "shape", "moments", "bases"),
    [
        ("std", (12, 7), (12, 3), {"right": (7, 3)}),
        ("std", (7, 12), (3, 12), {"left": (7, 3)}),
        ("std", (7, 7), (7, 3), {"right": (7, 3)}),
        ("reverse_std", (12, 7), (3, 7), {"left": (12, 3)}),
        ("reverse_std", (7, 12), (7, 3), {"right": (12, 3)}),
        ("right", (7, 12), (7, 3), {"right": (12, 3)}),
        ("left", (12, 7), (3, 7), {"left": (12, 3)}),
        ("full", (12, 7), (3, 3), {"left": (12, 3), "right": (7, 3)}),
    ],
)
def test_moments_and_bases_have_the_shapes_of_the_projection(random, kind, shape, moments, bases):
    weight = torch.nn.Parameter(torch.zeros(shape))
    (state,) = follow(weight, optimizer(weight, rank=3, proj_type=kind), [random(*shape)])
    assert state["exp_avg"].shape == state["exp_avg_sq"].shape == moments
    assert {side: state[side].shape for side in ("left", "right") if side in state} == bases
    for side in bases:
        torch.testing.assert_close(state[side].T @ state[side], torch.eye(3), atol=1e-5, rtol=0)


def test_the_rank_is_that_of_the_matrix_at_most():
    options = GaloreOptions(galore_rank=100)
    assert basis_shapes(torch.Size([12, 7]), options) == {"right": (7, 7)}


@pytest.mark.parametrize("gap", [1, 3, 5])
def test_the_projection_is_made_anew_every_gap_steps(random, gap):
    weight = torch.nn.Parameter(torch.zeros(12, 7))
    made = optimizer(weight, rank=3, update_proj_gap=gap)
    states = list(follow(weight, made, [random(12, 7) for _ in range(13)]))
    new = [0] + [i for i in range(1, 13) if not torch.equal(states[i]["right"], states[i - 1]["right"])]
    assert new == list(range(0, 13, gap))


def test_a_new_projection_is_that_of_the_gradient_of_its_step(random):
    gradients = [random(12, 7) for _ in range(3)]
    weight = torch.nn.Parameter(torch.zeros(12, 7))
    (*_, state) = follow(weight, optimizer(weight, rank=3, update_proj_gap=2), gradients)
    best = torch.linalg.svd(gradients[2]).S[:3].norm()
    torch.testing.assert_close((gradients[2] @ state["right"]).norm(), best)


def test_low_rank_least_squares_is_solved(random):
    """The gradient of a problem whose solution has rank 4 has rank 4, so nothing is lost."""
    inputs = torch.linalg.qr(random(40, 20)).Q * 40**0.5
    wanted = random(20, 4) @ random(4, 12)
    weight = torch.nn.Parameter(torch.zeros(20, 12))
    made = optimizer(weight, lr=0.3, rank=4, update_proj_gap=20)
    losses = []
    for number in range(600):
        made.param_groups[0]["lr"] = 0.3 * (1 - number / 600)
        loss = (inputs @ (weight - wanted)).square().mean()
        losses.append(loss.item())
        loss.backward()
        made.step()
        made.zero_grad()
    assert losses[-1] < 1e-4 * losses[0]


# --- Q-GaLore -------------------------------------------------------------------------------------


def gaps(gradients, **options):
    """Return the steps with a new projection, and the gap at the end."""
    weight = torch.nn.Parameter(torch.zeros(12, 7))
    made = optimizer(weight, rank=3, quantization=True, **options)
    states = list(follow(weight, made, gradients))
    planned = [int(state["next_projection"]) for state in states]
    return [0, *(i for i in range(1, len(planned)) if planned[i] != planned[i - 1])], int(states[-1]["gap"])


def test_similar_projections_get_rarer_once_the_queue_is_full(random):
    """Equal gradients: similarities at 2, 4 and 6 fill the queue, and from then on each projection doubles the gap."""
    steps, gap = gaps([random(12, 7)] * 40, update_proj_gap=2, queue_size=3, gamma_proj=2, cos_threshold=0.9)
    assert steps == [0, 2, 4, 6, 10, 18, 34]
    assert gap == 32


def test_the_gap_grows_by_gamma(random):
    steps, _ = gaps([random(12, 7)] * 20, update_proj_gap=1, queue_size=1, gamma_proj=3, cos_threshold=0.9)
    assert steps == [0, 1, 4, 13]


def test_projections_that_differ_keep_their_gap(random):
    gradients = [random(12, 7) for _ in range(13)]
    steps, gap = gaps(gradients, update_proj_gap=3, queue_size=1, cos_threshold=0.9)
    assert (steps, gap) == ([0, 3, 6, 9, 12], 3)
    assert gaps(gradients, update_proj_gap=3, queue_size=1, cos_threshold=-1.0)[1] > 3  # all are above


def test_the_similarity_does_not_see_signs(random):
    gradient = random(12, 7)
    steps, _ = gaps([gradient, -gradient] * 8, update_proj_gap=1, queue_size=1, gamma_proj=2, cos_threshold=0.99)
    assert steps == [0, 1, 3, 7, 15]


def test_without_q_galore_the_gap_stays(random):
    weight = torch.nn.Parameter(torch.zeros(12, 7))
    (*_, state) = follow(weight, optimizer(weight, rank=3, update_proj_gap=1, queue_size=1), [random(12, 7)] * 5)
    assert int(state["gap"]) == 1


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("group_size", [1, 7, 64, 256])
@pytest.mark.parametrize("shape", [(33, 5), (64, 64)])
def test_packed_values_are_at_most_half_a_level_off(random, bits, group_size, shape):
    values = random(*shape)
    codes, scale, minimum = pack(values, bits, group_size)
    groups = -(-values.numel() // group_size)
    assert (codes.dtype, codes.numel()) == (torch.uint8, -(-groups * group_size * bits // 8))
    assert scale.shape == minimum.shape == (groups,)
    found = unpack(codes, scale, minimum, bits, group_size, values.shape)
    half = scale.repeat_interleave(group_size)[: values.numel()].view(shape) / 2
    assert ((found - values).abs() <= half * 1.001 + 1e-6).all()


@pytest.mark.parametrize("bits", [4, 8])
def test_projections_are_kept_in_few_bits(random, bits):
    weight = torch.nn.Parameter(torch.zeros(128, 64))
    options = {"quantization": True, "proj_quant": True, "proj_bits": bits, "proj_group_size": 128}
    (state,) = follow(weight, optimizer(weight, rank=32, **options), [random(128, 64)])
    assert state["right"].numel() == 64 * 32 * bits // 8
    assert state["right_scale"].numel() == 64 * 32 // 128


def test_a_projection_of_8_bits_updates_almost_as_an_exact_one(random):
    gradients = [random(32, 16) for _ in range(10)]
    exact, rounded = (torch.nn.Parameter(torch.zeros(32, 16)) for _ in range(2))
    list(follow(exact, optimizer(exact, rank=8), gradients))
    list(follow(rounded, optimizer(rounded, rank=8, quantization=True, proj_quant=True, proj_bits=8), gradients))
    assert 0 < (rounded - exact).norm() < 0.05 * exact.norm()
