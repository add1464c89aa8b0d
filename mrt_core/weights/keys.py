"""The keys of checkpoint files: how the names of each part's tensors begin, and what their metadata is called."""

INFO_KEY = "mrt"  # metadata: what a checkpoint or a student's LoRA says about itself, as JSON
TOKENIZER_KEY = "tokenizer"  # metadata: the tokenizer of the text embeddings, as JSON

AUTOENCODER_PREFIX = "vae."
TEXT_PREFIX = "text_encoder."
FOREIGN_TEXT_PREFIX = "text_encoders."  # of ComfyUI's all-in-one files; their text encoder is not ours to load

ZERO_TIMESTEP_MARKER = "__index_timestep_zero__"  # an empty tensor in Qwen-Image-Edit-2511
