"""Reward feedback learning: a diffusion model is trained through its rewards, by their gradient to the pixels.

A few denoising steps, the first without a gradient, the last with one (as in DRaFT and ReFL); decode; score; and the
loss goes back through rewards, decoder and those last steps into LoRA weights. Everything runs here on a CPU within a
minute, with tiny random models: a real run differs in `open_pipeline` and `open_rewards` only, as they say.
"""

import tempfile
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from open_clip.tokenizer import SimpleTokenizer
from peft import LoraConfig
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from flux_rewards import AestheticScore, CLIPScore, CompositeReward

PROMPTS = ["a photo of a red cat", "a green field under a blue sky", "an old wooden chair", "a glass house at night"]
DENOISING_STEPS = 6
STEPS_WITH_GRADIENT = 2
TRAINING_STEPS = 40
TINY: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


def open_pipeline() -> Any:
    """The model to train, with LoRA weights. Yours: StableDiffusionPipeline.from_pretrained("..."), on the GPU."""
    pipeline: Any = StableDiffusionPipeline(
        vae=AutoencoderKL(
            block_out_channels=(16, 32),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            norm_num_groups=8,
        ),
        text_encoder=CLIPTextModel(CLIPTextConfig(**TINY)),
        tokenizer=clip_tokenizer(),
        unet=UNet2DConditionModel(
            sample_size=16,
            block_out_channels=(32, 64),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            layers_per_block=1,
            attention_head_dim=8,
            norm_num_groups=8,
            cross_attention_dim=32,
        ),
        scheduler=DDIMScheduler(steps_offset=1, clip_sample=False, timestep_spacing="trailing"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    for frozen in (pipeline.vae, pipeline.text_encoder, pipeline.unet):
        frozen.requires_grad_(False)
    layers = ["to_q", "to_k", "to_v", "to_out.0", "conv1", "conv2"]
    pipeline.unet.add_adapter(LoraConfig(r=8, lora_alpha=8, init_lora_weights="gaussian", target_modules=layers))
    # Activations are computed again on the way back instead of being kept: what makes this fit on one GPU.
    pipeline.unet.enable_gradient_checkpointing()
    pipeline.vae.enable_gradient_checkpointing()
    return pipeline


def open_rewards(folder: Path) -> CompositeReward:
    """What to train for: any rewards that are differentiable. Yours need no files: CLIPScore(), AestheticScore()."""
    towers: dict[str, Any] = {
        "text_config": TINY,
        "vision_config": {**TINY, "image_size": 32, "patch_size": 8},
        "projection_dim": 16,
    }
    clip = CLIPModel(CLIPConfig(**towers))
    for weight in clip.parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.15)  # else a random model finds all images alike
    clip.save_pretrained(folder)
    clip_tokenizer().save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    sizes = {0: (16, 1024), 2: (1024, 128), 4: (128, 64), 6: (64, 16), 7: (16, 1)}
    layers = {number: torch.nn.Linear(*size) for number, size in sizes.items()}
    for layer in layers.values():
        torch.nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
    head = {
        f"layers.{number}.{name}": value
        for number, layer in layers.items()
        for name, value in layer.state_dict().items()
    }
    torch.save(head, folder / "head.pth")
    return CompositeReward(
        {
            "clip": (CLIPScore(str(folder), activation_checkpointing=True), 1.0),
            "aesthetic": (AestheticScore(str(folder), head=str(folder / "head.pth")), 1.0),  # shares CLIP's tower
        }
    )


def clip_tokenizer() -> CLIPTokenizer:
    """CLIP's own, from the vocabulary that comes with open_clip."""
    known = SimpleTokenizer()
    names = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {names.get(token, token): number for token, number in known.encoder.items()}
    return CLIPTokenizer(vocab=vocabulary, merges=list(known.bpe_ranks), model_max_length=77)


def generate(pipeline: Any, prompts: list[str], seed: int) -> torch.Tensor:
    """Images (N, 3, H, W) in [0, 1], with a gradient through the last steps where gradients are on."""
    unet, vae, scheduler = pipeline.unet, pipeline.vae, pipeline.scheduler
    with torch.no_grad():
        embeddings, _ = pipeline.encode_prompt(prompts, pipeline.device, 1, do_classifier_free_guidance=False)
    shape = (len(prompts), unet.config.in_channels, unet.config.sample_size, unet.config.sample_size)
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(pipeline.device)
    scheduler.set_timesteps(DENOISING_STEPS)
    training = torch.is_grad_enabled()
    for step, timestep in enumerate(scheduler.timesteps):
        with torch.set_grad_enabled(training and step >= DENOISING_STEPS - STEPS_WITH_GRADIENT):
            noise = unet(latents, timestep, encoder_hidden_states=embeddings).sample
            latents = scheduler.step(noise, timestep, latents).prev_sample
    decoded: torch.Tensor = vae.decode(latents / vae.config.scaling_factor).sample
    return (decoded / 2 + 0.5).clamp(0, 1)


def mean_reward(pipeline: Any, rewards: CompositeReward) -> float:
    """Of the same prompts and seeds before and after, which are none of those in training."""
    with torch.no_grad():
        images = torch.cat([generate(pipeline, PROMPTS, seed) for seed in range(1_000_000, 1_000_004)])
    return float(rewards(prompt=PROMPTS * 4, image=images).rewards.mean())


def main() -> None:
    """Train, and print the mean reward before and after."""
    torch.manual_seed(0)
    torch.set_num_threads(1)  # models as tiny as these lose more to several threads than they gain
    pipeline = open_pipeline()
    with tempfile.TemporaryDirectory() as folder:
        rewards = open_rewards(Path(folder))
        rewards.load()
    lora = [weight for weight in pipeline.unet.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(lora, lr=1e-2, weight_decay=0.0)
    before = mean_reward(pipeline, rewards)
    for step in range(TRAINING_STEPS):
        images = generate(pipeline, PROMPTS, seed=step)
        loss = rewards.loss(images, PROMPTS, kind="hinge", target=1.0)  # no push beyond it
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(lora, 1.0)
        optimizer.step()
        if step % 10 == 0:
            print(f"step {step}: loss {loss.item():.4f}")
    print(f"mean reward before {before:.4f}, after {mean_reward(pipeline, rewards):.4f}")


if __name__ == "__main__":
    main()
