"""AuraEquiVAE as a diffusers model, with the interface of its ``AutoencoderKL``.

    from auravae_cli.adapters.diffusers_vae import AuraEquiVAE

    vae = AuraEquiVAE.from_model("small")
    pipeline = DiTPipeline(transformer, vae, scheduler)

Needs diffusers: ``pip install diffusers``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from auravae_cli.defaults import DEFAULT_MODEL
from auravae_cli.errors import ComputeError, WeightsError
from auravae_cli.latents.latent_file import LatentSpace
from auravae_cli.model.engine import find_device
from auravae_cli.model.latent_space import locate, require_architecture
from auravae_cli.model.network.autoencoder import Decoder, Encoder
from auravae_cli.model.network.weights import PARTS, load_networks
from auravae_cli.model.spec.config import Architecture
from auravae_cli.model.torch_network import TorchNetwork
from auravae_cli.symmetry.action import act
from auravae_cli.symmetry.group import GroupElement, Irreps

try:
    from diffusers import ConfigMixin, ModelMixin
    from diffusers.configuration_utils import register_to_config
    from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
    from diffusers.models.modeling_outputs import AutoencoderKLOutput
    from diffusers.utils.accelerate_utils import apply_forward_hook
except ImportError as error:
    raise ImportError(f"this adapter needs diffusers ({error}): pip install diffusers") from error

try:  # of diffusers 0.36 and later
    from diffusers.models.autoencoders.vae import AutoencoderMixin
except ImportError:

    class AutoencoderMixin:  # type: ignore[no-redef]
        """What programs ask whether a model is an autoencoder."""


TILING_MEMORY = 1 << 30  # of features after enable_tiling() without arguments


class Point(DiagonalGaussianDistribution):
    """A posterior without spread: its mode, its mean and every sample are the latent itself.

    Sampling does not use the generator. Its KL divergence is 0, as in diffusers for deterministic
    posteriors.
    """

    def __init__(self, latent: Tensor) -> None:
        super().__init__(torch.cat([latent, torch.full_like(latent, -30)], 1), deterministic=True)
        self.mean = latent

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Return the latent, [B, C, h, w]."""
        return self.mean


class AuraEquiVAE(ModelMixin, AutoencoderMixin, ConfigMixin):
    """A network of the AuraEquiVAE family for pipelines and trainers of diffusers.

    Latents are raw: scale 1, shift 0, clamped by `encode` to +-``config.clamp``. `flip` mirrors them.
    The weights are frozen until ``requires_grad_(True)``. If no gradient is needed, it runs like `Codec`:
    on the CPU, and if memory is short, in strips of rows, with the same result up to rounding.
    """

    _supports_gradient_checkpointing = False
    # In pixels, if a program sets them: what a tile of this size takes is the memory of `enable_tiling`.
    tile_sample_min_height: int | None = None
    tile_sample_min_width: int | None = None

    @register_to_config
    def __init__(
        self,
        ch: int = 256,
        ch_mult: Sequence[int] = (1, 2, 4, 4),
        num_res_blocks: int | Sequence[int] = 2,
        latent_channels: int = 16,
        irreps: str = "12xee+2xoe+2xeo",
        clamp: float = 8.0,
        name: str = "aura",
        weights_sha256: str = "",
        in_channels: int = 3,
        out_channels: int = 3,
        block_out_channels: Sequence[int] | None = None,
        scaling_factor: float = 1.0,
        shift_factor: float = 0.0,
        force_upcast: bool = False,
    ) -> None:
        super().__init__()
        blocks = num_res_blocks if isinstance(num_res_blocks, int) else tuple(num_res_blocks)
        self.architecture = Architecture(ch, tuple(ch_mult), blocks, latent_channels)
        self.irreps = Irreps.parse(irreps)
        self.encoder, self.decoder = Encoder(self.architecture), Decoder(self.architecture)
        # Pipelines derive the downsampling factor from the length of this list.
        self.register_to_config(block_out_channels=list(self.architecture.widths))
        self.use_tiling = self.use_slicing = False
        self._tiling_memory: int | None = None
        self._network: TorchNetwork | None = None
        self.requires_grad_(False)

    @classmethod
    def from_model(
        cls, model: str = DEFAULT_MODEL, *, device: str = "cpu", dtype: torch.dtype = torch.float32
    ) -> AuraEquiVAE:
        """Load a network by its name (``auravae models list``) or from the path of any checkpoint.

        Raises WeightsError (the model ``linear`` is not a network) or DeviceError.
        """
        located = locate(model)
        if located.is_linear:
            raise WeightsError(f"model {model!r} is no network; for diffusers name another one")
        parts, sizes = load_networks(located.path, tuple(PARTS), find_device(device), dtype)
        require_architecture(located.path, located.config, sizes)
        space = located.space(sizes)
        with torch.device("meta"):  # spends neither memory nor time on initial values
            vae = cls(
                ch=sizes.ch,
                ch_mult=list(sizes.ch_mult),
                num_res_blocks=list(sizes.blocks),  # as JSON gives it back
                latent_channels=sizes.latent_channels,
                irreps=str(space.irreps),
                clamp=space.clamp,
                name=space.model,
                weights_sha256=space.weights_sha256,
            )
        for part, module in parts.items():
            vae.get_submodule(part).load_state_dict(module.state_dict(), assign=True)
        return vae.eval()

    @property
    def space(self) -> LatentSpace:
        """The latent space, as latent files record it, of the original weights."""
        config, factor = self.config, self.architecture.downsampling_factor
        return LatentSpace(config.name, config.weights_sha256, factor, self.irreps, config.clamp)

    @apply_forward_hook
    def encode(self, x: Tensor, return_dict: bool = True) -> Any:
        """Encode pixels [B, 3, H, W] in [-1, 1] => ``.latent_dist`` over [B, C, H/f, W/f].

        Raises ValueError if a side is not a multiple of f; ComputeError if the result has NaN or infinity,
        or memory runs out.
        """
        factor = self.architecture.downsampling_factor
        if x.ndim != 4 or x.shape[1] != 3 or any(side % factor or not side for side in x.shape[2:]):
            raise ValueError(
                f"expected [B, 3, H, W] in multiples of {factor}, found {tuple(x.shape)}"
            )
        raw = self._run(self.encoder, TorchNetwork.encode, x, x.shape[2:])
        if not raw.isfinite().all():  # the clamp would make infinity look like a latent
            raise ComputeError("the encoder gave NaN or infinite values; try float32")
        posterior = Point(raw.clamp(-self.config.clamp, self.config.clamp))
        return AutoencoderKLOutput(latent_dist=posterior) if return_dict else (posterior,)

    @apply_forward_hook
    def decode(
        self, z: Tensor, return_dict: bool = True, generator: torch.Generator | None = None
    ) -> Any:
        """Decode latents [B, C, h, w] => ``.sample`` [B, 3, f*h, f*w], about [-1, 1], not clipped.

        Raises ValueError for another shape, ComputeError if memory runs out.
        """
        channels = self.architecture.latent_channels
        if z.ndim != 4 or z.shape[1] != channels or 0 in z.shape[2:]:
            raise ValueError(f"expected [B, {channels}, h, w], found {tuple(z.shape)}")
        factor = self.architecture.downsampling_factor
        sides = [factor * side for side in z.shape[2:]]
        image = self._run(self.decoder, TorchNetwork.decode, z, sides)
        return DecoderOutput(sample=image) if return_dict else (image,)

    def forward(
        self,
        sample: Tensor,
        sample_posterior: bool = False,
        return_dict: bool = True,
        generator: torch.Generator | None = None,
    ) -> Any:
        """Return the reconstruction of pixels; ``sample_posterior`` has no effect."""
        return self.decode(self.encode(sample).latent_dist.mode(), return_dict=return_dict)

    def flip(self, z: Tensor, g: GroupElement | str) -> Tensor:
        """Apply ``g`` (``"h"``, ``"v"`` or ``"hv"``) to latents [..., C, h, w], exactly.

        Unpack the packed latents of a pipeline, such as FLUX's, first. Raises ValueError.
        """
        return act(GroupElement.parse(g) if isinstance(g, str) else g, z, self.irreps)

    def enable_tiling(
        self,
        use_tiling: bool = True,
        tile_sample_min_height: int | None = None,
        tile_sample_min_width: int | None = None,
        tile_sample_stride_height: float | None = None,
        tile_sample_stride_width: float | None = None,
        *,
        memory: int | None = None,
    ) -> None:
        """Keep features within ``memory`` bytes (default: 1 GiB) by computing strips of rows; there are no tiles.

        If the size of a tile is given, the memory is what a picture of that size takes; strides do not
        matter. Norms and attention see the whole picture, so the result is that of a plain run. Without
        ``memory``, a picture that cannot run in so little takes as little as it can.
        """
        self.tile_sample_min_height = tile_sample_min_height or self.tile_sample_min_height
        self.tile_sample_min_width = tile_sample_min_width or self.tile_sample_min_width
        self.use_tiling, self._tiling_memory, self._network = use_tiling, memory, None

    @property
    def tile_sample_min_size(self) -> int | None:
        """The side of a square tile in pixels, if one was set."""
        return self.tile_sample_min_height

    @tile_sample_min_size.setter
    def tile_sample_min_size(self, side: int) -> None:
        self.tile_sample_min_height = self.tile_sample_min_width = side

    @property
    def tile_latent_min_size(self) -> int | None:
        """The same in cells of the latent."""
        side = self.tile_sample_min_size
        return None if side is None else side // self.architecture.downsampling_factor

    @tile_latent_min_size.setter
    def tile_latent_min_size(self, side: int) -> None:
        self.tile_sample_min_size = side * self.architecture.downsampling_factor

    def disable_tiling(self) -> None:
        """Use most of the free memory, as before `enable_tiling`."""
        self.use_tiling, self._tiling_memory, self._network = False, None, None

    def enable_slicing(self) -> None:
        """Run the pictures of a batch one after the other."""
        self.use_slicing = True

    def disable_slicing(self) -> None:
        """Run the pictures of a batch together, as far as they fit."""
        self.use_slicing = False

    def _run(
        self,
        part: nn.Module,
        method: Callable[[TorchNetwork, Tensor], Tensor],
        x: Tensor,
        sides: Sequence[int],
    ) -> Tensor:
        """Run one half on a batch, in the weights' dtype; ``sides`` are height and width in pixels."""
        if self.use_slicing and len(x) > 1:
            return torch.cat([self._run(part, method, item, sides) for item in x.split(1)])
        dtype = self.dtype
        is_plain = torch.compiler.is_compiling() or _is_hooked(part)
        if is_plain or (torch.is_grad_enabled() and _wants_grad(part, x)):
            return cast(Tensor, part(x.to(dtype)))
        result = method(self._plan(sides), x)
        # A copy, since autograd refuses tensors made in inference mode.
        return result.to(dtype) if result.dtype != dtype else result.clone()

    def _plan(self, sides: Sequence[int]) -> TorchNetwork:
        """Return what runs the modules if no gradient is needed."""
        memory, known = self._tiling_memory, self._network
        place = (self.device, self.dtype)
        if known is None or (known.device, known.dtype) != place:
            parts = {"encoder": self.encoder, "decoder": self.decoder}
            known = TorchNetwork(parts, self.architecture, *place)
            self._network = known
        if self.use_tiling and memory is None:
            memory = max(self._memory_of_a_tile(known), known.least_memory(*sides))
        known.memory = memory
        return known

    def _memory_of_a_tile(self, network: TorchNetwork) -> int:
        """Return what a tile of the size that was set takes; without one, the default."""
        factor, wide = self.architecture.downsampling_factor, self.tile_sample_min_width
        high = self.tile_sample_min_height or wide
        if not high:
            return TILING_MEMORY
        return network.needs(-(-high // factor) * factor, -(-(wide or high) // factor) * factor)


def _wants_grad(part: nn.Module, x: Tensor) -> bool:
    return x.requires_grad or any(weight.requires_grad for weight in part.parameters())


def _is_hooked(part: nn.Module) -> bool:
    """Return whether calling its layers does more than compute, such as fetch offloaded weights."""
    return any(
        hasattr(layer, "_hf_hook") or hasattr(layer, "_diffusers_hook") for layer in part.modules()
    )
