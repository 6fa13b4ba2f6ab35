"""AuraEquiVAE for ComfyUI. This folder goes into ``custom_nodes``; the nodes are in auravae."""

from auravae_cli.adapters.comfyui import (
    NODE_CLASS_MAPPINGS as NODE_CLASS_MAPPINGS,
    NODE_DISPLAY_NAME_MAPPINGS as NODE_DISPLAY_NAME_MAPPINGS,
)
