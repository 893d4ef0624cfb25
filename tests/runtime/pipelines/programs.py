"""diffusers' guides as programs: written for diffusers, and run with its imports or with ours.

Sources: the documentation of diffusers 0.42, "Stable Diffusion XL" (using-diffusers/sdxl), "Text-to-image"
(conditional_image_generation), "Image-to-image" (img2img), "Inpainting" (inpaint), "ControlNet" (controlnet) and
"Prompt weighting" (weighted_prompts). What
is changed: the checkpoints are tiny, and so are sizes and step counts; pictures come from the test; ``DTYPE`` is
float32. Each leaves its pictures in ``images``.
"""

__all__ = ["PROGRAMS"]

PROGRAMS: dict[str, str] = {
    "sdxl_text_to_image": """
from diffusers import AutoPipelineForText2Image
import torch

pipeline_text2image = AutoPipelineForText2Image.from_pretrained(
    SDXL, torch_dtype=DTYPE, use_safetensors=True
).to("cpu")

prompt = "a cat in a jungle, cold color palette, (detailed:1.3), 8k"
generator = torch.Generator("cpu").manual_seed(31)
image = pipeline_text2image(prompt=prompt, height=64, width=72, num_inference_steps=4, generator=generator).images[0]
again = pipeline_text2image(prompt=prompt, num_inference_steps=3, generator=generator).images[0]
images = [image, again]
""",
    "sdxl_image_to_image": """
from diffusers import AutoPipelineForImage2Image, AutoPipelineForText2Image
import torch

pipeline_text2image = AutoPipelineForText2Image.from_pretrained(SDXL, torch_dtype=DTYPE)
pipeline = AutoPipelineForImage2Image.from_pipe(pipeline_text2image).to("cpu")

prompt = "a dog catching a frisbee in the jungle"
image = pipeline(prompt, image=PICTURE, strength=0.8, guidance_scale=10.5, num_inference_steps=5,
                 generator=torch.manual_seed(7)).images[0]
images = [image]
""",
    "sdxl_inpainting": """
from diffusers import AutoPipelineForInpainting, AutoPipelineForText2Image
import torch

pipeline_text2image = AutoPipelineForText2Image.from_pretrained(SDXL, torch_dtype=DTYPE)
pipeline = AutoPipelineForInpainting.from_pipe(pipeline_text2image).to("cpu")

prompt = "a deep sea diver floating"
image = pipeline(prompt=prompt, image=PICTURE, mask_image=MASK, strength=0.85, guidance_scale=12.5, height=64, width=64,
                 num_inference_steps=4, generator=torch.manual_seed(7)).images[0]
images = [image]
""",
    "sdxl_base_and_refiner": """
from diffusers import DiffusionPipeline
import torch

base = DiffusionPipeline.from_pretrained(SDXL, torch_dtype=DTYPE, use_safetensors=True).to("cpu")
refiner = DiffusionPipeline.from_pretrained(REFINER, torch_dtype=DTYPE, use_safetensors=True).to("cpu")

prompt = "a majestic lion jumping from a big stone at night"
generator = torch.Generator().manual_seed(3)
image = base(prompt=prompt, height=64, width=64, num_inference_steps=5, denoising_end=0.8, output_type="latent",
             generator=generator).images
image = refiner(prompt=prompt, num_inference_steps=5, denoising_start=0.8, image=image, generator=generator).images[0]

latents = base(prompt=prompt, num_inference_steps=3, output_type="latent", generator=generator).images[0]
refined = refiner(prompt=prompt, image=latents[None, :], num_inference_steps=5, generator=generator).images[0]
images = [image, refined]
""",
    "sdxl_micro_conditioning": """
from diffusers import StableDiffusionXLPipeline
import torch

pipe = StableDiffusionXLPipeline.from_pretrained(SDXL, torch_dtype=DTYPE, use_safetensors=True).to("cpu")

prompt = "a cat in a jungle"
prompt_2 = "a dog"
image = pipe(
    prompt=prompt,
    prompt_2=prompt_2,
    negative_prompt="a hat",
    negative_prompt_2="red",
    negative_original_size=(32, 32),
    negative_target_size=(64, 64),
    negative_crops_coords_top_left=(0, 8),
    crops_coords_top_left=(16, 0),
    num_inference_steps=3,
    guidance_rescale=0.5,
    num_images_per_prompt=2,
    generator=[torch.Generator().manual_seed(i) for i in range(2)],
    output_type="np",
).images
images = list(image)
""",
    "text_to_image": """
from diffusers import AutoPipelineForText2Image, EulerAncestralDiscreteScheduler, UniPCMultistepScheduler
import torch

pipeline = AutoPipelineForText2Image.from_pretrained(
    SD, torch_dtype=DTYPE, safety_checker=None
).to("cpu")
generator = torch.Generator("cpu").manual_seed(31)
image = pipeline("a cat in a hat, elegant, 8k", 64, 56, 3, guidance_scale=3.5, generator=generator).images[0]

pipeline.scheduler = UniPCMultistepScheduler.from_config(pipeline.scheduler.config, use_karras_sigmas=True)
second = pipeline(["a cat", "a dog"], num_inference_steps=4, negative_prompt=["red", "ugly"],
                  generator=generator, return_dict=False)[0]

pipeline.vae.enable_tiling()
large = pipeline("a cat", 128, 128, 2, generator=generator).images[0]
pipeline.vae.disable_tiling()

pipeline.scheduler = EulerAncestralDiscreteScheduler.from_config(pipeline.scheduler.config)
torch.manual_seed(5)
third = pipeline("a dog", num_inference_steps=3, output_type="pt").images.permute(0, 2, 3, 1).numpy()
images = [image, *second, large, *third]
""",
    "safety_checker": """
from diffusers import AutoPipelineForImage2Image, StableDiffusionPipeline
import torch

pipe = StableDiffusionPipeline.from_pretrained(SD_CHECKED, torch_dtype=DTYPE)
call = {"num_inference_steps": 2, "height": 64, "width": 96}

def generators():
    return [torch.Generator().manual_seed(i) for i in range(6)]

output = pipe("a cat", num_images_per_prompt=6, generator=generators(), output_type="np", **call)
pil, flags = pipe("a cat", num_images_per_prompt=6, generator=generators(), return_dict=False, **call)
latent = pipe("a cat", generator=torch.manual_seed(2), output_type="latent", **call)
image_to_image = AutoPipelineForImage2Image.from_pipe(pipe)
kept = image_to_image.safety_checker is not None
pipe.safety_checker = None
unchecked = pipe("a cat", num_images_per_prompt=6, generator=generators(), output_type="np", **call)
without = AutoPipelineForImage2Image.from_pipe(pipe)
values = [output.nsfw_content_detected, flags, latent.nsfw_content_detected, unchecked.nsfw_content_detected,
          [image.getbbox() is None for image in pil], len(output), len(unchecked), kept,
          image_to_image.safety_checker is not None, without.safety_checker]
images = [output.images, unchecked.images]
""",
    "dynamic_guidance": """
from diffusers import StableDiffusionPipeline
import torch

pipeline = StableDiffusionPipeline.from_pretrained(SD, torch_dtype=DTYPE, safety_checker=None)
call = {"num_inference_steps": 5, "height": 64, "width": 72}
prompts = ["a photo of an astronaut riding a horse", "a dog"]

def callback_dynamic_cfg(pipe, step_index, timestep, callback_kwargs):
    # adjust the batch_size of prompt_embeds according to guidance_scale
    if step_index == int(pipeline.num_timesteps * 0.4):
        prompt_embeds = callback_kwargs["prompt_embeds"]
        prompt_embeds = prompt_embeds.chunk(2)[-1]

        # update guidance_scale and prompt_embeds
        pipeline._guidance_scale = 0.0
        callback_kwargs["prompt_embeds"] = prompt_embeds
    values.append([step_index, float(pipe.guidance_scale), pipe.do_classifier_free_guidance])
    return callback_kwargs

values = []
def draw(callback, inputs, prompt=prompts):
    output = pipeline(prompt, generator=torch.manual_seed(1), callback_on_step_end=callback, **call,
                      callback_on_step_end_tensor_inputs=inputs, output_type="np")
    return list(output.images)

images = draw(callback_dynamic_cfg, ["prompt_embeds"])

def interrupt_callback(pipeline, i, t, callback_kwargs):
    stop_idx = 2
    if i == stop_idx:
        pipeline._interrupt = True
    return callback_kwargs

images += draw(interrupt_callback, ["latents"])

def decode_tensors(pipe, step, timestep, callback_kwargs):
    latents = callback_kwargs["latents"]
    values.append([step, tuple(latents.shape)])
    return callback_kwargs

images += draw(decode_tensors, ["latents"], "a cat")

def other_text(pipe, step, timestep, callback_kwargs):
    if step == 1:
        negative, positive = callback_kwargs["prompt_embeds"].chunk(2)
        callback_kwargs["prompt_embeds"] = torch.cat([negative, positive.flip(0)])
        values.append(torch.equal(negative, callback_kwargs["negative_prompt_embeds"]))
    pipe._guidance_scale = pipe._guidance_scale * 0.8
    callback_kwargs["latents"] = callback_kwargs["latents"] * 0.99
    return callback_kwargs

images += draw(other_text, ["latents", "prompt_embeds", "negative_prompt_embeds"])
""",
    "sdxl_callbacks": """
from diffusers import AutoPipelineForText2Image
from diffusers.callbacks import SDXLCFGCutoffCallback
import torch

pipeline = AutoPipelineForText2Image.from_pretrained(SDXL, torch_dtype=DTYPE)
call = {"num_inference_steps": 5, "height": 64, "width": 64, "negative_prompt": "red"}
image = pipeline("a sports car at the road", generator=torch.manual_seed(2), **call,
                 callback_on_step_end=SDXLCFGCutoffCallback(cutoff_step_ratio=0.4)).images[0]

def smaller(pipe, step, timestep, callback_kwargs):
    if step == 2:
        callback_kwargs["add_time_ids"] = callback_kwargs["add_time_ids"] * 0.5
        callback_kwargs["add_text_embeds"] = callback_kwargs["add_text_embeds"] * 2
    return callback_kwargs

other = pipeline("a sports car", generator=torch.manual_seed(2), **call, callback_on_step_end=smaller,
                 callback_on_step_end_tensor_inputs=["add_time_ids", "add_text_embeds"]).images[0]
images = [image, other]
""",
    "prompt_weighting": """
from compel import CompelForSDXL
from diffusers import DiffusionPipeline
import torch

pipeline = DiffusionPipeline.from_pretrained(SDXL, torch_dtype=DTYPE, use_safetensors=True)
compel = CompelForSDXL(pipeline)
weighted = compel("a cat (in the jungle)1.4, an old man with (a hat)0.6", negative_prompt="red")
prompt_embeds, negative_prompt_embeds, pooled, negative_pooled = pipeline.encode_prompt(
    "a cat", "a dog", "cpu", num_images_per_prompt=1, do_classifier_free_guidance=True, negative_prompt="blurry"
)
ids = pipeline.tokenizer("a cat", padding="max_length", max_length=pipeline.tokenizer.model_max_length,
                         truncation=True, return_tensors="pt").input_ids
values = [ids.tolist(), pipeline.tokenizer.decode(ids[0]), len(pipeline.tokenizer)]

def draw(embeds, pooled, negative, negative_pooled):
    return pipeline(prompt_embeds=embeds, pooled_prompt_embeds=pooled, negative_prompt_embeds=negative,
                    negative_pooled_prompt_embeds=negative_pooled, num_inference_steps=2,
                    generator=torch.manual_seed(3)).images[0]

images = [
    draw(weighted.embeds, weighted.pooled_embeds, weighted.negative_embeds, weighted.negative_pooled_embeds),
    draw(prompt_embeds, pooled, negative_prompt_embeds, negative_pooled),
]
""",
    "encoded_prompts": """
from compel import Compel
from diffusers import StableDiffusionPipeline
import torch

pipe = StableDiffusionPipeline.from_pretrained(SD, torch_dtype=DTYPE, safety_checker=None)
compel = Compel(tokenizer=pipe.tokenizer, text_encoder=pipe.text_encoder, truncate_long_prompts=False)
embeds = compel("a (large)1.3 house, a small tree, " * 12)
embeds, negative = compel.pad_conditioning_tensors_to_same_length([embeds, compel("red")])
own, own_negative = pipe.encode_prompt(["a cat", "a dog"], "cpu", 1, True, negative_prompt=["red", "blue"])
images = pipe(prompt_embeds=embeds, negative_prompt_embeds=negative, num_inference_steps=2,
              generator=torch.manual_seed(3)).images
images += pipe(prompt_embeds=own, negative_prompt_embeds=own_negative, num_inference_steps=2,
               generator=torch.manual_seed(3)).images
""",
    "callbacks": """
from diffusers import StableDiffusionPipeline
import torch

pipeline = StableDiffusionPipeline.from_pretrained(SD, torch_dtype=DTYPE)
pipeline.set_progress_bar_config(disable=True)

seen = []

def stop_early(pipeline, i, t, callback_kwargs):
    latents = callback_kwargs["latents"]
    seen.append((i, int(t), tuple(latents.shape), pipeline.num_timesteps))
    callback_kwargs["latents"] = latents * 0.9
    if i == 2:
        pipeline._interrupt = True
    return callback_kwargs

image = pipeline("a dog", num_inference_steps=5, generator=torch.manual_seed(1), callback_on_step_end=stop_early,
                 callback_on_step_end_tensor_inputs=["latents"]).images[0]
images = [image]
values = seen
""",
    "image_to_image": """
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionPipeline
import torch

text2img = StableDiffusionPipeline.from_pretrained(SD, torch_dtype=DTYPE)
text2img.enable_attention_slicing()
pipeline = StableDiffusionImg2ImgPipeline(**text2img.components)

image = pipeline("a cat", PICTURE, 0.6, 5, guidance_scale=7.5, generator=torch.manual_seed(0)).images[0]
images = [image]
""",
    "inpainting_checkpoint": """
from diffusers import AutoPipelineForInpainting, DDIMScheduler
import torch

pipeline = AutoPipelineForInpainting.from_pretrained(SD_INPAINT, torch_dtype=DTYPE)
pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
pipeline.unet = torch.compile(pipeline.unet, mode="reduce-overhead", fullgraph=True) if OURS else pipeline.unet

prompt = "concept art digital painting of an elven castle"
image = pipeline(prompt=prompt, image=PICTURE, mask_image=MASK, num_inference_steps=4, eta=0.5,
                 generator=torch.manual_seed(0)).images[0]
blurred_mask = pipeline.mask_processor.blur(MASK, blur_factor=3)
repainted = pipeline(prompt=prompt, image=PICTURE, mask_image=blurred_mask, num_inference_steps=2, height=64, width=64,
                     generator=torch.manual_seed(0)).images[0]
overlaid = pipeline.image_processor.apply_overlay(blurred_mask, PICTURE, repainted)
cropped = pipeline.image_processor.apply_overlay(MASK, PICTURE, repainted, (8, 16, 56, 48))
images = [image, overlaid, cropped]
""",
    "controlnet": """
from diffusers import ControlNetModel, StableDiffusionControlNetPipeline, UniPCMultistepScheduler
import torch

controlnet = ControlNetModel.from_pretrained(CONTROLNET, torch_dtype=DTYPE, use_safetensors=True)
pipe = StableDiffusionControlNetPipeline.from_pretrained(
    SD, controlnet=controlnet, torch_dtype=DTYPE, use_safetensors=True
)
pipe.scheduler = UniPCMultistepScheduler.from_config(pipe.scheduler.config)
pipe.enable_model_cpu_offload() if OURS else None

output = pipe("the mona lisa", image=PICTURE, num_inference_steps=4, controlnet_conditioning_scale=0.7,
              control_guidance_end=0.8, generator=torch.manual_seed(2)).images[0]
images = [output]
""",
    "several_controlnets": """
from diffusers import ControlNetModel, StableDiffusionXLControlNetPipeline
import torch

controlnets = [
    ControlNetModel.from_pretrained(SDXL_CONTROLNET, torch_dtype=DTYPE),
    ControlNetModel.from_pretrained(SDXL_CONTROLNET_2, torch_dtype=DTYPE),
]
pipe = StableDiffusionXLControlNetPipeline.from_pretrained(SDXL, controlnet=controlnets, torch_dtype=DTYPE)
image = pipe("a room", image=[PICTURE, PICTURE.rotate(90)], num_inference_steps=3, generator=torch.manual_seed(2),
             controlnet_conditioning_scale=[1.0, 0.8]).images[0]
images = [image]
""",
    "loras": """
from diffusers import StableDiffusionPipeline
import torch

pipe = StableDiffusionPipeline.from_pretrained(SD, torch_dtype=DTYPE)

def draw(**options):
    return pipe("a cat", num_inference_steps=2, generator=torch.manual_seed(2), **options).images[0]

images = [draw()]
pipe.load_lora_weights(LORA_FOLDER, weight_name="first.safetensors", adapter_name="first")
images.append(draw())
images.append(draw(cross_attention_kwargs={"scale": 0.5}))
pipe.load_lora_weights(LORA_FOLDER / "second.safetensors", adapter_name="second")
values = [pipe.get_active_adapters()]
images.append(draw())
pipe.set_adapters(["first", "second"], adapter_weights=[0.4, 0.8])
values.append(pipe.get_active_adapters())
images.append(draw())
pipe.disable_lora()
images.append(draw())
pipe.enable_lora()
pipe.fuse_lora(lora_scale=0.7)
values += [pipe.num_fused_loras, sorted(pipe.fused_loras)]
pipe.unload_lora_weights()
values.append(pipe.get_list_adapters())
images.append(draw())
""",
}
"""By name."""
