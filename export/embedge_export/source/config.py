"""What other readers need to build their configuration files, from transformers' own."""

from typing import Any

from embedge.modelfile.settings import TransformerSettings

# Models that do not use transformers' common name for the width of their feed-forward layers.
_WIDTHS = ("intermediate_size", "hidden_dim", "ffn_dim", "d_ff", "n_inner", "encoder_ffn_dim")


def transformer_settings(transformer: Any) -> TransformerSettings:
    """Describe a loaded sentence-transformers Transformer: its network and its tokenizer."""
    config, tokenizer = transformer.auto_model.config, transformer.tokenizer
    widths = (getattr(config, name, None) for name in _WIDTHS)
    roles = {role: str(token) for role, token in _special_tokens(tokenizer).items()}
    return TransformerSettings(
        model_type=str(config.model_type),
        layers=int(config.num_hidden_layers),
        heads=int(config.num_attention_heads),
        hidden_size=int(config.hidden_size),
        intermediate_size=next((n for n in widths if isinstance(n, int) and n > 0), None),
        vocab_size=int(transformer.auto_model.get_input_embeddings().weight.shape[0]),
        tokenizer_class=type(tokenizer).__name__.removesuffix("Fast"),
        pad_id=None if tokenizer.pad_token is None else int(tokenizer.pad_token_id),
        special_tokens=roles,
        special_ids={
            role: int(tokenizer.convert_tokens_to_ids(token)) for role, token in roles.items()
        },
    )


def _special_tokens(tokenizer: Any) -> dict[str, Any]:
    """Special tokens by role: "cls_token", "sep_token" and others, each a single token."""
    return {
        role: token
        for role, token in tokenizer.special_tokens_map.items()
        if isinstance(token, str) or hasattr(token, "content")
    }
