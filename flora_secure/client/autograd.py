"""Local training for any placement: gradients by `torch.func`, clients of a round in batches where memory allows.

On the text projection with labels it gives what the closed form (`local`) gives, at some times the cost. Where the
image tower itself trains, a client's images may not fit in memory together, nor do many prompts or captions in the text
tower: then the gradient with respect to the embeddings is taken first and carried through the towers part by part (Gao
et al. 2021, arXiv 2101.06983), which is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.func import grad, vmap

from flora_secure.client.objectives import Objective
from flora_secure.model.factors import Factors
from flora_secure.model.towers import Fixed, Indices, Inputs, Tower, embedded, parts_of, pullback
from flora_secure.planning.rules import Rule


@dataclass(frozen=True, eq=False)
class Autograd:
    """Everything of local training but the adapter. `clients[i]`: indices of client i's images.

    `texts`: those of the classes, the same for all, or one for each image, as `objective` has it. `target`: what
    the objective wants to know of each image, int64 (N,).
    """

    text: Tower
    image: Tower
    objective: Objective
    texts: Inputs
    images: Inputs
    target: Tensor = field(repr=False)
    clients: Sequence[Indices] = field(repr=False)

    def train(
        self, rule: Rule, factors: Factors, steps: int, rate: float, cohort: Sequence[int] | None = None
    ) -> Tensor:
        """Updates after `steps` full-batch gradient steps from `factors`: float32 (clients, d).

        A row for each client of `cohort`, in its order; by default for every client.
        """
        cohort = range(len(self.clients)) if cohort is None else cohort
        start = factors.vector(rule)
        updates = start.new_empty(len(cohort), len(start))
        for rows in self._batches(cohort):
            members = [self.clients[cohort[row]] for row in rows]
            texts = len(self.texts) if self.objective.shares_text else len(members[0])
            apart = len(members) == 1 and (len(members[0]) > self.image.rows or texts > self.text.rows)
            gradients = self._inparts_of(members[0], rule, factors) if apart else self._batched(members, rule, factors)
            vectors = start.expand(len(rows), -1)
            for step in range(steps):
                vectors = vectors - rate * _moving(rule, factors, step) * gradients(vectors)
            updates[rows] = vectors - start
        return updates

    def example_gradients(self, rule: Rule, factors: Factors, parts: Sequence[Indices]) -> Iterator[Tensor]:
        """Gradient of every image's own loss with respect to the trained values, float32 (n, d), part by part.

        For objectives that share their texts, so that a loss belongs to one image.
        """
        start = factors.vector(rule)
        one = torch.ones(1, device=start.device)

        def image_of(vector: Tensor, image: Tensor) -> Tensor:
            return self.image(image[None], factors.with_vector(rule, vector))[0]

        def own_loss(text: Tensor, image: Tensor, target: Tensor) -> Tensor:
            return self.objective(text, image[None], target[None], one)

        text = embedded(self.text, self.texts, factors)

        def gradient(image: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
            embedded, through_image = pullback(lambda vector: image_of(vector, image), start)
            by_text, by_image = grad(own_loss, argnums=(0, 1))(text, embedded, target)
            return by_text, through_image(by_image)

        def through_text(by_text: Tensor) -> Tensor:
            """Gradients (n, d) from those with respect to the texts' embeddings, (n, texts, embed)."""
            total = start.new_zeros(len(by_text), len(start))
            if isinstance(self.text, Fixed):
                return total
            for part in parts_of(np.arange(len(self.texts)), self.text.rows):
                taken = self.texts.take(part)
                _, back = pullback(lambda v: self.text(taken, factors.with_vector(rule, v)), start)  # noqa: B023
                total = total + vmap(back)(by_text[:, part])
            return total

        for part in parts:
            found = []
            for some in parts_of(part, self.image.rows):
                target = self.target[torch.from_numpy(some).to(start.device)]
                by_text, by_image = vmap(gradient)(self.images.take(some), target)
                found.append(through_text(by_text) + by_image)
            yield torch.cat(found)

    def _batches(self, cohort: Sequence[int]) -> Iterator[list[int]]:
        """Rows of clients of similar sizes, as many as fit in memory when filled up to the largest, at least one."""
        order = sorted(range(len(cohort)), key=lambda row: len(self.clients[cohort[row]]), reverse=True)
        while order:
            longest = len(self.clients[cohort[order[0]]])
            texts = len(self.texts) if self.objective.shares_text else longest
            count = max(1, min(self.image.rows // longest, self.text.rows // texts))
            yield order[:count]
            order = order[count:]

    def _batched(self, members: Sequence[Indices], rule: Rule, factors: Factors) -> Callable[[Tensor], Tensor]:
        """Gradients (m, d) of the members' losses as a function of their vectors (m, d)."""
        longest = max(map(len, members))
        filled = np.stack([np.concatenate([own, np.repeat(own[:1], longest - len(own))]) for own in members])
        weight = np.stack([(np.arange(longest) < len(own)) / np.float32(len(own)) for own in members])
        shared, device = self.objective.shares_text, self.target.device

        def taken(inputs: Inputs) -> Tensor:
            return inputs.take(filled.ravel()).view(*filled.shape, *inputs.take(filled[0, :1]).shape[1:])

        def loss(vector: Tensor, texts: Tensor, images: Tensor, target: Tensor, weight: Tensor) -> Tensor:
            now = factors.with_vector(rule, vector)
            return self.objective(self.text(texts, now), self.image(images, now), target, weight)

        texts = self._all_texts() if shared else taken(self.texts)
        given = texts, taken(self.images), self.target[torch.from_numpy(filled).to(device)]
        weights = torch.from_numpy(weight.astype(np.float32)).to(device)
        gradient: Callable[..., Tensor] = vmap(grad(loss), in_dims=(0, None if shared else 0, 0, 0, 0))
        return lambda vectors: gradient(vectors, *given, weights)

    def _inparts_of(self, own: Indices, rule: Rule, factors: Factors) -> Callable[[Tensor], Tensor]:
        """`_batched` of one client whose images or texts do not fit in memory together."""
        target = self.target[torch.from_numpy(own).to(self.target.device)]
        weight = torch.full((len(own),), 1 / len(own), device=target.device)
        texts = np.arange(len(self.texts)) if self.objective.shares_text else own
        sides = ((self.text, self.texts, texts), (self.image, self.images, own))

        def gradient(vector: Tensor) -> Tensor:
            with torch.no_grad():
                now = factors.with_vector(rule, vector)
                text, image = (
                    torch.cat([tower(inputs.take(part), now) for part in parts_of(which, tower.rows)])
                    for tower, inputs, which in sides
                )
            cotangents = grad(lambda t, i: self.objective(t, i, target, weight), argnums=(0, 1))(text, image)
            total = torch.zeros_like(vector)
            for (tower, inputs, which), cotangent in zip(sides, cotangents, strict=True):
                if isinstance(tower, Fixed):
                    continue
                for part, piece in zip(parts_of(which, tower.rows), torch.split(cotangent, tower.rows), strict=True):
                    taken = inputs.take(part)
                    _, back = pullback(lambda v: tower(taken, factors.with_vector(rule, v)), vector)  # noqa: B023
                    total = total + back(piece)
            return total

        return lambda vectors: gradient(vectors[0])[None]

    def _all_texts(self) -> Tensor:
        return self.texts.take(np.arange(len(self.texts)))


def _moving(rule: Rule, factors: Factors, step: int) -> Tensor:
    """1 for each trained value that moves in local step `step`, 0 for those whose turn it is not; float32 (d,)."""
    parts = [
        part.new_full((part.numel(),), float(moves))
        for part, own, moves in (
            (factors.b, rule.trains_b, rule.trains_b_in(step)),
            (factors.a, rule.trains_a, rule.trains_a_in(step)),
        )
        if own
    ]
    return torch.cat(parts)
