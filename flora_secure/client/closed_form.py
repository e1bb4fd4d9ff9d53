"""Local training of all clients of a round at once, in closed form.

With the image tower frozen and LoRA on the text projection, a client's problem is small and explicit. Its images are
constant features F (n, embed), the class prompts constant pooled features H (classes, width), and

    V = H W0 + s (H A) B      t = V / |V|        loss = mean cross-entropy of  scale · F tᵀ

(plus SigLIP's bias, constant like H W0; that of its logits, the same for all classes, cancels in the cross-entropy),
so the gradients with respect to A and B are a few matrix products (derived below, tested against autograd through
the real peft model). Clients are padded to the size of their group and train as one batch.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from flora_secure.client.control_variate import ControlVariate
from flora_secure.client.example_gradients import example_gradients
from flora_secure.model.devices import batch_map
from flora_secure.model.factors import Factors
from flora_secure.model.head import Head
from flora_secure.model.towers import Indices
from flora_secure.planning.rules import Rule

# Clients of a group are padded to the largest one: small groups of similar sizes waste little, and fit a processor's
# cache. An accelerator would rather have much to do at once.
GROUP = 16
_GROUP_ON_ACCELERATOR = 256


@dataclass(frozen=True)
class _Group:
    clients: tuple[int, ...]
    features: Tensor  # (m, n, embed), zero rows where a client has fewer than n images
    one_hot: Tensor  # (m, classes, n): classes first, since matrix products of that shape are three times faster
    weight: Tensor  # (m, 1, n): 1/n_i on real images, 0 on padding

    @property
    def counts(self) -> Tensor:
        """Each client's images of every class, float32 (m, classes)."""
        return self.one_hot.sum(dim=2)

    def only(self, cohort: Container[int]) -> _Group | None:
        """The members in `cohort`; `None` if there are none."""
        rows = [row for row, client in enumerate(self.clients) if client in cohort]
        if len(rows) == len(self.clients):
            return self
        if not rows:
            return None
        members = tuple(self.clients[row] for row in rows)
        return _Group(members, self.features[rows], self.one_hot[rows], self.weight[rows])


class ClientBatch:
    """The images of all clients as cached features, grouped by size."""

    def __init__(self, features: Tensor, labels: Tensor, clients: Sequence[Tensor], classes: int) -> None:
        """`features` float32 (N, embed) of unit norm, `labels` int64 (N,), `clients[i]` client i's indices."""
        self.count = len(clients)
        sizes = [len(indices) for indices in clients]
        if min(sizes) == 0:
            raise ValueError(f"client {sizes.index(0)} has no images; every client needs at least one")
        order = sorted(range(self.count), key=sizes.__getitem__)
        groups, together = [], GROUP if features.device.type == "cpu" else _GROUP_ON_ACCELERATOR
        for start in range(0, self.count, together):
            members = tuple(order[start : start + together])
            longest = sizes[members[-1]]
            padded = features.new_zeros(len(members), longest, features.shape[1])
            one_hot = features.new_zeros(len(members), classes, longest)
            weight = features.new_zeros(len(members), 1, longest)
            for row, client in enumerate(members):
                indices, size = clients[client], sizes[client]
                padded[row, :size] = features[indices]
                one_hot[row, labels[indices], torch.arange(size)] = 1.0
                weight[row, :, :size] = 1.0 / size
            groups.append(_Group(members, padded, one_hot, weight))
        self._groups = tuple(groups)

    def train(
        self,
        head: Head,
        rule: Rule,
        factors: Factors,
        steps: int,
        rate: float,
        cohort: Sequence[int] | None = None,
        variate: ControlVariate | None = None,
    ) -> Tensor:
        """Updates after `steps` full-batch gradient steps from `factors`: float32 (clients, d).

        A row for each client of `cohort`, in its order; by default for every client. `variate` is evaluated at
        `factors`, and every step subtracts it.
        """
        start = factors.vector(rule)
        cohort = range(self.count) if cohort is None else cohort
        place = {client: row for row, client in enumerate(cohort)}
        updates = start.new_empty(len(place), len(start))
        expected = None if variate is None else variate.at(head.text(factors), head.logit_scale, len(place))

        def train(group: _Group) -> None:
            subtracted = None if expected is None else expected.of(group.counts)
            a, b = _train_group(group, head, rule, factors, steps, rate, subtracted)
            parts = [part.flatten(1) for part, own in ((b, rule.trains_b), (a, rule.trains_a)) if own]
            end = torch.cat(parts, dim=1)
            updates[[place[client] for client in group.clients]] = end - start

        groups = [part for group in self._groups if (part := group.only(place)) is not None]
        for _ in batch_map(train, groups, start.device):
            pass
        return updates


def _train_group(
    group: _Group, head: Head, rule: Rule, factors: Factors, steps: int, rate: float, subtracted: Tensor | None
) -> tuple[Tensor, Tensor]:
    members = len(group.clients)
    constant, read = head.constant, head.scale * head.prompts  # (C, e), (C, w)
    a = factors.a.expand(members, -1, -1)
    b = factors.b.expand(members, -1, -1)
    u = read @ a  # (m, C, r)
    for step in range(steps):
        value = constant + u @ b  # (m, C, e)
        norm = value.norm(dim=-1, keepdim=True)
        t = value / norm
        probability = torch.softmax((head.logit_scale * t) @ group.features.mT, dim=1)  # (m, C, n)
        g_logits = (probability - group.one_hot) * group.weight
        g_t = head.logit_scale * g_logits @ group.features  # (m, C, e)
        if subtracted is not None:
            g_t = g_t - subtracted
        # t = V/|V|: only the part of the gradient that is orthogonal to t moves V
        g_value = (g_t - t * (t * g_t).sum(-1, keepdim=True)) / norm
        g_b = u.mT @ g_value  # (m, r, e)
        if rule.trains_a_in(step):
            a = a - rate * (read.T @ (g_value @ b.mT))
            u = read @ a
        if rule.trains_b_in(step):
            b = b - rate * g_b
    return a, b


@dataclass(frozen=True, eq=False)
class ClosedForm:
    """The learner of labels on the text projection.

    Attributes:
        head: the frozen part of the classifier.
        batch: the clients' images.
        features, labels: of all private images, float32 (N, embed) and int64 (N,).
        variate: what local training subtracts from its gradients, if anything.
    """

    head: Head
    batch: ClientBatch = field(repr=False)
    features: Tensor = field(repr=False)
    labels: Tensor = field(repr=False)
    variate: ControlVariate | None = None

    def train(self, rule: Rule, factors: Factors, steps: int, rate: float, cohort: Sequence[int]) -> Tensor:
        """Updates of the clients of `cohort`, see `trainer.Learner`."""
        return self.batch.train(self.head, rule, factors, steps, rate, cohort, self.variate)

    def example_gradients(self, rule: Rule, factors: Factors, parts: Sequence[Indices]) -> Iterator[Tensor]:
        """Gradients of single images, see `trainer.Learner`."""

        def of(part: Indices) -> Tensor:
            rows = torch.from_numpy(part).to(self.labels.device)
            return example_gradients(self.head, rule, factors, self.features[rows], self.labels[rows])

        return batch_map(of, parts, self.labels.device)
