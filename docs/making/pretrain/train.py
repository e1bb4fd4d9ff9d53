"""The training loop: contrastive loss, a decoder as a second teacher, whitening, and the text tower's last tuning."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from open_clip.model import CustomTextCLIP

from pretrain.corpora import Corpus
from pretrain.teacher import COMPONENTS, Teacher
from pretrain.views import TARGETS, cut_out, targets, to_model

Log = Callable[[dict[str, object]], None]


@dataclass(frozen=True)
class Phase:
    """A stretch of training: the learning rate warms up, stays, then falls linearly to 0 in the last steps."""

    steps: int
    decay: float  # share of the steps in which the learning rate falls
    lr: float
    public: int  # images of the public slice in a batch
    rendered: int
    fine: int  # public captions that name the class
    icons: int = 0
    contrastive: float = 1.0  # weights of the three losses; what weighs 0 is not computed
    decoder: float = 2.5
    teacher: float = 0.0


@dataclass(frozen=True)
class Recipe:
    """Every number of the pretraining."""

    phases: tuple[Phase, ...] = (
        Phase(steps=1500, decay=0.4, lr=3e-3, public=96, rendered=160, fine=90),
        Phase(steps=2400, decay=0.5, lr=2e-3, public=128, rendered=96, fine=180),
        Phase(
            steps=1000, decay=0.6, lr=2e-3, public=192, rendered=64, fine=180, contrastive=0.3, decoder=1.0, teacher=1.0
        ),
    )
    warm_up: int = 100
    weight_decay: float = 0.05
    clip: float = 2.0
    smoothing: float = 0.05
    renders: int = 40_000
    shrink: float = 0.02  # of the whitening, in mean variances
    tune_steps: int = 400
    tune_batch: int = 384
    tune_lr: float = 1e-3
    seed: int = 0

    @property
    def steps(self) -> int:
        return sum(phase.steps for phase in self.phases)

    def at(self, step: int) -> tuple[Phase, float]:
        """The phase that `step` (from 0) belongs to, and its learning rate there."""
        phase = self.phases[-1]
        for phase in self.phases:
            if step < phase.steps:
                break
            step -= phase.steps
        remaining = (phase.steps - step) / max(1.0, phase.decay * phase.steps)
        return phase, phase.lr * max(0.0, min(1.0, (step + 1) / self.warm_up, remaining))


def encode_captions(model: CustomTextCLIP, tokens: torch.Tensor) -> torch.Tensor:
    """Normalised text embeddings; attention is causal, so cutting the padding off changes nothing but the time."""
    text = model.text
    ends = tokens.argmax(1)
    length = int(ends.max()) + 1
    x = text.token_embedding(tokens[:, :length]) + text.positional_embedding[:length]
    x = text.ln_final(text.transformer(x, attn_mask=text.attn_mask[:length, :length]))
    return F.normalize(x[torch.arange(len(x)), ends] @ text.text_projection, dim=-1)


def contrastive(
    image: torch.Tensor, text: torch.Tensor, which: torch.Tensor, scale: torch.Tensor, smoothing: float
) -> torch.Tensor:
    """CLIP's loss over the distinct captions of a batch: equal captions are positives of each other.

    `image` (n, d) and `text` (m, d) are normalised, `which` (n,) is the caption of each image.
    """
    logits = scale * image @ text.T
    loss = F.cross_entropy(logits, which, label_smoothing=smoothing)
    match = F.one_hot(which, len(text)).float()
    share = (1 - smoothing) * match / match.sum(0) + smoothing / len(image)
    return (loss - (share * logits.log_softmax(0)).sum(0).mean()) / 2


def _optimiser(modules: list[torch.nn.Module], recipe: Recipe, lr: float) -> torch.optim.AdamW:
    parameters = [p for m in modules for p in m.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98))


class Trainer:
    """Model, decoders, optimiser. Randomness is a function of seed and step, so a resumed run equals a straight one.

    The image tower computes in bfloat16, all else in float32.
    """

    def __init__(
        self,
        model: CustomTextCLIP,
        tokenizer: Callable[[list[str]], torch.Tensor],
        corpora: Sequence[Corpus],
        recipe: Recipe,
    ) -> None:
        """`corpora`: the public slice, what is rendered, and icons where a phase of `recipe` sees them."""
        self.model, self.tokenizer, self.corpora, self.recipe = model, tokenizer, corpora, recipe
        self.size = model.visual.image_size[0]
        embed = model.text.text_projection.shape[1]
        self.decoder, self.pupil = torch.nn.Linear(embed, TARGETS), torch.nn.Linear(embed, COMPONENTS)
        self.teacher: Teacher | None = None
        sample = targets(corpora[0].images.float().div(255).unsqueeze(1))
        self.centre, self.spread = sample.mean(0), sample.std(0) + 0.05
        self.optimiser = _optimiser([model, self.decoder, self.pupil], recipe, recipe.phases[0].lr)
        self.step = 0

    def advance(self) -> dict[str, float]:
        """One step; returns its losses."""
        r = self.recipe
        rng = np.random.default_rng([r.seed, self.step])
        torch_rng = torch.Generator().manual_seed(int(rng.integers(2**62)))
        phase, rate = r.at(self.step)
        views, words = [], []
        for corpus, count in zip(self.corpora, (phase.public, phase.rendered, phase.icons), strict=False):
            if count:
                chosen = corpus.draw(count, rng)
                views.append(corpus.views(chosen, torch_rng))
                words += corpus.captions(chosen, phase.fine, rng)
        view = torch.cat(views)

        self.model.train()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            embedding = self.model.encode_image(to_model(cut_out(view, torch_rng), self.size))
        embedding = embedding.float()
        losses = {"decoder": phase.decoder * F.mse_loss(self.decoder(embedding), self._pictures(view))}
        if phase.contrastive:
            losses["clip"] = phase.contrastive * self._contrastive(embedding, words)
        if phase.teacher:
            taught = phase.public + phase.rendered  # the teacher knows no icons
            pupil = self.pupil(embedding[:taught])
            losses["teacher"] = phase.teacher * F.mse_loss(pupil, self._taught().targets(view[:taught]))
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward()
        parameters = [p for group in self.optimiser.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, r.clip)
        self.optimiser.step()
        with torch.no_grad():
            self.model.logit_scale.clamp_(max=math.log(50))
        self.step += 1
        return {name: loss.item() for name, loss in losses.items()}

    def _pictures(self, view: torch.Tensor) -> torch.Tensor:
        return (targets(view) - self.centre) / self.spread

    def _contrastive(self, embedding: torch.Tensor, captions: list[str]) -> torch.Tensor:
        words, which = np.unique(captions, return_inverse=True)
        text = encode_captions(self.model, self.tokenizer(list(words)))
        scale = self.model.logit_scale.exp()
        image = F.normalize(embedding, dim=-1)
        return contrastive(image, text, torch.from_numpy(which), scale, self.recipe.smoothing)

    def _taught(self) -> Teacher:
        """The image tower as it was when it was first asked."""
        if self.teacher is None:
            trunk = self.model.visual.trunk
            self.teacher = Teacher.of(trunk, self.size, self.corpora[0].images, self.recipe.seed)
        return self.teacher

    def save(self, path: Path) -> None:
        state = {"step": self.step, "model": self.model.state_dict(), "decoder": self.decoder.state_dict()}
        state |= {"pupil": self.pupil.state_dict(), "teacher": self.teacher and self.teacher.state()}
        part = path.with_suffix(".part")
        torch.save({**state, "optimiser": self.optimiser.state_dict()}, part)
        part.replace(path)

    def load(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        self.decoder.load_state_dict(state["decoder"])
        self.pupil.load_state_dict(state["pupil"])
        if state["teacher"] is not None:
            self.teacher = Teacher.from_state(self.model.visual.trunk, self.size, state["teacher"])
        self.optimiser.load_state_dict(state["optimiser"])

    def run(self, log: Log, checkpoint: Path, stop: int, measure: Callable[[], dict[str, float]]) -> None:
        """Steps up to `stop`; a log line every 50, a checkpoint every 100, a measurement every 500 steps."""
        start, first, losses = time.monotonic(), self.step, []
        while self.step < stop:
            losses.append(self.advance())
            if self.step % 50 == 0:
                names = {name for x in losses for name in x}
                mean = {k: round(float(np.mean([x[k] for x in losses if k in x])), 4) for k in sorted(names)}
                pace = (time.monotonic() - start) / (self.step - first)
                log({"step": self.step, **mean, "seconds_per_step": round(pace, 3)})
                losses = []
            if self.step % 100 == 0:
                self.save(checkpoint)
            if self.step % 500 == 0:
                log({"step": self.step, **measure()})
        self.save(checkpoint)


@torch.no_grad()
def image_embeddings(model: CustomTextCLIP, view: torch.Tensor) -> torch.Tensor:
    """Unnormalised embeddings (n, d) of views (n, 1, 28, 28) in 0..1."""
    model.eval()
    size = model.visual.image_size[0]
    return torch.cat([model.encode_image(to_model(part, size)) for part in view.split(250)])


@torch.no_grad()
def whiten(model: CustomTextCLIP, images: torch.Tensor, shrink: float) -> None:
    """Fold z → (Σ + shrink · mean variance)^-½ (z - μ), μ and Σ of `images`, into the last layer of the image tower.

    The text projection takes the inverse, so that inner products change by a constant of each caption only.
    """
    z = image_embeddings(model, images.float().div(255).unsqueeze(1)).double()
    mean = z.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov(z.T))
    values = values.clamp(min=0) + shrink * values.mean()
    whitening = vectors @ torch.diag(values**-0.5) @ vectors.T
    inverse = vectors @ torch.diag(values**0.5) @ vectors.T
    last = model.visual.trunk.fc
    last.bias.copy_((whitening @ (last.bias.double() - mean)).float())
    last.weight.copy_((whitening @ last.weight.double()).float())
    model.text.text_projection.copy_((model.text.text_projection.double() @ inverse).float())


@torch.no_grad()
def narrow(model: CustomTextCLIP, images: torch.Tensor, width: int) -> None:
    """Keep the first `width` principal components of the embeddings of `images`, of both towers, and no more."""
    z = image_embeddings(model, images.float().div(255).unsqueeze(1)).double()
    _, vectors = torch.linalg.eigh(torch.cov(z.T))
    kept = vectors[:, -width:]
    last = model.visual.trunk.fc
    fewer = torch.nn.Linear(last.in_features, width)
    fewer.weight.copy_((kept.T @ last.weight.double()).float())
    fewer.bias.copy_((kept.T @ last.bias.double()).float())
    model.visual.trunk.fc = fewer
    text = model.text.text_projection.double() @ kept
    model.text.text_projection = torch.nn.Parameter(text.float())


def tune_text(trainer: Trainer, corpora: Sequence[Corpus], log: Log) -> None:
    """Train the text tower alone against fixed embeddings of eight views of each image of `corpora`, as many of each in
    a batch."""
    r, model = trainer.recipe, trainer.model
    torch_rng = torch.Generator().manual_seed(r.seed)
    embeddings = [_embedded(model, corpus, torch_rng) for corpus in corpora]
    model.visual.requires_grad_(False)
    optimiser = _optimiser([model], r, r.tune_lr)
    for step in range(r.tune_steps):
        rng = np.random.default_rng([r.seed, 1, step])
        parts, captions = [], []
        for corpus, embedded in zip(corpora, embeddings, strict=True):
            count = r.tune_batch // len(corpora)
            chosen = corpus.draw(count, rng)
            captions += corpus.captions(chosen, r.phases[-1].fine, rng)
            parts.append(embedded[torch.from_numpy(rng.integers(0, len(embedded), count)), torch.from_numpy(chosen)])
        words, which = np.unique(captions, return_inverse=True)
        text = encode_captions(model, trainer.tokenizer(list(words)))
        loss = contrastive(torch.cat(parts), text, torch.from_numpy(which), model.logit_scale.exp(), r.smoothing)
        for group in optimiser.param_groups:
            group["lr"] = r.tune_lr * (1 - step / r.tune_steps)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=math.log(50))
        if (step + 1) % 100 == 0:
            log({"tune": step + 1, "clip": round(loss.item(), 4), "scale": round(model.logit_scale.exp().item(), 2)})


def _embedded(model: CustomTextCLIP, corpus: Corpus, rng: torch.Generator) -> torch.Tensor:
    """Unit-norm embeddings (views, n, d) of the images as they are and of seven random views."""
    everything = np.arange(len(corpus.images))
    views = [corpus.images.float().div(255).unsqueeze(1), *(corpus.views(everything, rng) for _ in range(7))]
    return F.normalize(torch.stack([image_embeddings(model, view) for view in views]), dim=-1)
