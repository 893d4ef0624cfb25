"""Attributes and methods of diffusers' pipelines that have no work to do here, and those that cannot be had."""

__all__ = ["CONSTANTS", "NOTED", "NOTED_OF_PARTS", "OPENING_NOTED", "OPENING_REFUSED", "REFUSED", "REFUSED_OF_PARTS"]

_ATTENTION = "attention is compiled into the engine"
_INSIDE = "it is a part of diffusers' own loop; Pipeline.prepare, denoise and decode are the same in parts here"
_CONFIG = "it is of diffusers' config classes; pipe.config has the values"
_LORA = "LoRAs are files here; load_lora_weights takes their paths"
_IP_ADAPTER = "IP-Adapter is not supported yet"

NOTED: dict[str, str] = {
    "enable_attention_slicing": _ATTENTION,
    "disable_attention_slicing": _ATTENTION,
    "set_attention_slice": _ATTENTION,
    "enable_xformers_memory_efficient_attention": _ATTENTION,
    "disable_xformers_memory_efficient_attention": _ATTENTION,
    "set_use_memory_efficient_attention_xformers": _ATTENTION,
    "fuse_qkv_projections": "the engine's compiler fuses projections where that is faster; results are the same",
    "unfuse_qkv_projections": "the engine's compiler fuses projections where that is faster; results are the same",
    "enable_vae_slicing": "images are always decoded one at a time",
    "disable_vae_slicing": "images are always decoded one at a time",
    "enable_group_offload": "weights are mapped from the bundle's file; enable_model_cpu_offload() saves memory",
    "maybe_free_model_hooks": "there are no hooks; close() releases the engines",
    "remove_all_hooks": "there are no hooks",
    "reset_device_map": "there is no device map",
    "upcast_vae": "the VAE runs in float32 where it would overflow in float16",
    "disable_freeu": "FreeU is never on",
    "unload_ip_adapter": "no IP-Adapter is loaded",
    "enable_lora_hotswap": "LoRAs change without compiling anything again",
    "set_lora_device": "LoRAs are merged into the weights, wherever those are",
    "eval": "engines are always in evaluation mode",
}
"""Methods that are accepted, and why they change nothing."""

REFUSED: dict[str, str] = {
    "enable_freeu": "FreeU changes the UNet's skip connections while it runs, which a compiled engine cannot",
    "load_ip_adapter": _IP_ADAPTER,
    "set_ip_adapter_scale": _IP_ADAPTER,
    "prepare_ip_adapter_image_embeds": _IP_ADAPTER,
    "encode_image": _IP_ADAPTER,
    "load_lora_into_unet": _LORA,
    "load_lora_into_text_encoder": _LORA,
    "lora_state_dict": _LORA,
    "save_lora_weights": _LORA,
    "write_lora_layers": _LORA,
    "pack_weights": _LORA,
    "save_pretrained": "a bundle is no checkpoint: copy the checkpoint's folder, or the bundle (pipe.bundle)",
    "push_to_hub": "a bundle is no checkpoint: push the checkpoint's folder",
    "maybe_convert_prompt": "words of textual inversions are replaced when the prompt is read",
    "check_image": _INSIDE,
    "check_inputs": _INSIDE,
    "decode_latents": _INSIDE,
    "get_guidance_scale_embedding": _INSIDE,
    "get_zero_embed": "leave negative_image_embeds out: it is what a decoder takes without",
    "get_timesteps": _INSIDE,
    "prepare_control_image": _INSIDE,
    "prepare_extra_step_kwargs": _INSIDE,
    "prepare_image": _INSIDE,
    "prepare_latents": _INSIDE,
    "prepare_mask_latents": _INSIDE,
    "progress_bar": _INSIDE,
    "run_safety_checker": "a call runs it, and its output says what it found (nsfw_content_detected)",
    "extract_init_dict": _CONFIG,
    "from_config": _CONFIG,
    "get_config_dict": _CONFIG,
    "load_config": _CONFIG,
    "parameters": _CONFIG,
    "register_for_auto_class": _CONFIG,
    "register_modules": _CONFIG,
    "register_to_config": _CONFIG,
    "save_config": _CONFIG,
    "to_json_file": _CONFIG,
    "to_json_string": _CONFIG,
}
"""Attributes and methods that cannot be had, and what to do instead."""

CONSTANTS: dict[str, object] = {
    "config_name": "model_index.json",
    "has_compatibles": False,
    "hf_device_map": None,
    "ignore_for_config": (),
    "model_cpu_offload_seq": "text_encoder->text_encoder_2->unet->vae",
    "text_encoder_name": "text_encoder",
    "unet_name": "unet",
}
"""Attributes that say the same of every pipeline."""

_CONFIGS = "the configs follow from the weights; `sdengine export --config` takes others"

OPENING_NOTED: dict[str, str] = {
    "config": _CONFIGS,
    "original_config": _CONFIGS,
    "original_config_file": _CONFIGS,
    "use_safetensors": "safetensors are taken where the checkpoint has them, else pickles, which are read as data",
    "low_cpu_mem_usage": "weights are mapped, not loaded",
    "device_map": "the engines run on one device; .to() says which",
    "max_memory": "the engines run on one device",
    "offload_folder": "weights are mapped from the bundle's file",
    "offload_state_dict": "weights are mapped from the bundle's file",
    "disable_mmap": "weights are mapped from the bundle's file",
    "use_flashpack": "weights are mapped from the bundle's file",
    "load_connected_pipeline": "the checkpoint is exported alone",
    "trust_remote_code": "no code of a checkpoint is run",
    "image_encoder": "it is IP-Adapter's, which is not supported yet",
    "requires_safety_checker": "as in diffusers, safety_checker=None is what leaves it out",
    "use_onnx": "graphs are exported from the checkpoint's weights",
    "local_dir": "the Hub's cache is used",
    "local_dir_use_symlinks": "the Hub's cache is used",
    "resume_download": "downloads are always resumed",
    "proxies": "the environment's HTTPS_PROXY is used",
    "force_download": "files are compared with the Hub's by its library",
    "upcast_attention": "the checkpoint's config says so, or the precision does",
}
"""Options of ``from_pretrained`` and ``from_single_file`` that are accepted, and why they change nothing."""

_KANDINSKY = "parts of Kandinsky's checkpoints are exported together; prior= names another prior"

OPENING_REFUSED: dict[str, str] = {
    "image_processor": _KANDINSKY,
    "movq": _KANDINSKY,
    "prior_image_encoder": _KANDINSKY,
    "prior_image_processor": _KANDINSKY,
    "prior_prior": _KANDINSKY,
    "prior_scheduler": _KANDINSKY,
    "prior_text_encoder": _KANDINSKY,
    "prior_tokenizer": _KANDINSKY,
    "custom_pipeline": "code of other pipelines cannot be compiled; the classes of sdengine.runtime.pipelines are all",
    "custom_revision": "code of other pipelines cannot be compiled",
    "quantization_config": "quantised networks cannot be exported; torch_dtype=torch.float16 halves the memory",
    "provider": "name the engine: engine='onnxruntime' or engine='onnxruntime-cuda'",
    "provider_options": "name the engine, and give its options to sdengine.runtime.Pipeline",
    "sess_options": "name the engine, and give its options to sdengine.runtime.Pipeline",
    "state_dict": "write the weights to a file, and name it",
    "cache_dir": "set HF_HOME for downloads and SDENGINE_CACHE for bundles",
    "mirror": "set HF_ENDPOINT",
    "load_safety_checker": "a single file has none; give from_pretrained a folder, with safety_checker=...",
    "scheduler_type": "set pipe.scheduler, or give scheduler= to the call",
    "enable_pag": "perturbed attention changes attention layers while they run, which a compiled engine cannot",
}
"""Options that cannot be had, and what to do instead."""

_TRAINING = "engines cannot be trained"

NOTED_OF_PARTS: dict[str, str] = {
    "to": "a part runs where its pipeline runs; pipe.to() says where",
    "cuda": "a part runs where its pipeline runs; pipe.to() says where",
    "cpu": "a part runs where its pipeline runs; pipe.to() says where",
    "half": "a part runs in the precision of its pipeline; pipe.to() says which",
    "float": "a part runs in the precision of its pipeline; pipe.to() says which",
    "bfloat16": "a part runs in the precision of its pipeline; pipe.to() says which",
    "eval": "engines are always in evaluation mode",
    "requires_grad_": "engines have no gradients",
    "compile": "it is compiled already",
    "compile_repeated_blocks": "it is compiled already",
    "enable_slicing": "images are always decoded one at a time",
    "disable_slicing": "images are always decoded one at a time",
    "fuse_qkv_projections": NOTED["fuse_qkv_projections"],
    "unfuse_qkv_projections": NOTED["fuse_qkv_projections"],
    "enable_xformers_memory_efficient_attention": _ATTENTION,
    "disable_xformers_memory_efficient_attention": _ATTENTION,
    "set_attention_slice": _ATTENTION,
    "set_default_attn_processor": _ATTENTION,
    "enable_gradient_checkpointing": "engines have no gradients",
    "disable_gradient_checkpointing": "engines have no gradients",
    "enable_group_offload": NOTED["enable_group_offload"],
}
"""Methods of ``pipe.unet``, ``pipe.vae``, ... that are accepted, and why they change nothing."""

REFUSED_OF_PARTS: dict[str, str] = {
    "set_attn_processor": "other attention processors cannot be put into a compiled engine",
    "attn_processors": "attention is compiled into the engine",
    "set_attention_backend": "attention is compiled into the engine",
    "enable_layerwise_casting": "the precision is in the graphs; pipe.to() says which",
    "enable_freeu": REFUSED["enable_freeu"],
    "load_attn_procs": _LORA,
    "load_lora_adapter": _LORA,
    "train": _TRAINING,
    "parameters": _TRAINING,
    "named_parameters": _TRAINING,
    "state_dict": "weights stay in the bundle's file",
    "load_state_dict": "give from_pretrained a checkpoint with these weights",
    "save_pretrained": "copy the checkpoint's folder",
    "encode": "give the picture to the call as image",
    "decode": "a call with output_type='pil' decodes; Pipeline.decode() decodes samples",
    "forward": "it runs inside the pipeline's engines",
}
"""Attributes of ``pipe.unet``, ``pipe.vae``, ... that cannot be had."""
