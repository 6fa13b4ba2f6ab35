"""The encoder and the decoder, built and named like the reference's."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from auravae_cli.model.network.layers import (
    AttentionBlock,
    Downsample,
    ResnetBlock,
    Upsample,
    conv3x3,
    group_norm,
    silu,
)
from auravae_cli.model.spec.config import Architecture


class Middle(nn.Module):
    """Block, attention, block, at the lowest resolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block_1 = ResnetBlock(channels, channels)
        self.attn_1 = AttentionBlock(channels)
        self.block_2 = ResnetBlock(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


class Level(nn.Module):
    """The residual blocks at one resolution, then the step to the next one, if any."""

    def __init__(
        self, channels_in: int, channels_out: int, num_blocks: int, resample: str | None = None
    ) -> None:
        super().__init__()
        widths = [channels_in] + [channels_out] * num_blocks
        self.block = nn.ModuleList(ResnetBlock(a, b) for a, b in pairwise(widths))
        if resample == "downsample":
            self.downsample = Downsample(channels_out)
        elif resample == "upsample":
            self.upsample = Upsample(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        for step in self.children():
            for layer in step if isinstance(step, nn.ModuleList) else [step]:
                x = layer(x)
        return x


class Encoder(nn.Module):
    """Encode pixels [B, 3, H, W] in [-1, 1] => latents [B, C, H/f, W/f], not yet clamped."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        widths = architecture.widths
        self.conv_in = conv3x3(3, architecture.ch)
        self.down = nn.ModuleList(
            Level(
                channels_in,
                channels_out,
                architecture.blocks[level],
                "downsample" if level < len(widths) - 1 else None,
            )
            for level, (channels_in, channels_out) in enumerate(
                pairwise((architecture.ch, *widths))
            )
        )
        self.mid = Middle(widths[-1])
        self.norm_out = group_norm(widths[-1])
        self.conv_out = conv3x3(widths[-1], architecture.latent_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for level in self.down:
            x = level(x)
        return self.conv_out(silu(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    """Decode latents [B, C, h, w] => pixels [B, 3, f*h, f*w], about [-1, 1], not clipped."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        widths = architecture.widths
        self.conv_in = conv3x3(architecture.latent_channels, widths[-1])
        self.mid = Middle(widths[-1])
        self.up = nn.ModuleList(  # numbered by resolution, so it runs from last to first
            Level(
                channels_in,
                channels_out,
                architecture.blocks[level] + 1,
                "upsample" if level > 0 else None,
            )
            for level, (channels_out, channels_in) in enumerate(pairwise((*widths, widths[-1])))
        )
        self.norm_out = group_norm(widths[0])
        self.conv_out = conv3x3(widths[0], 3)

    def forward(self, z: Tensor) -> Tensor:
        z = self.mid(self.conv_in(z))
        for level in reversed(self.up):
            z = level(z)
        return self.conv_out(silu(self.norm_out(z)))
