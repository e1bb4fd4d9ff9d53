"""How good a run's adapter is: the sections of the report on accuracy, retrieval and forgetting."""

from __future__ import annotations

import math
from collections.abc import Sequence

from flora_secure.engine.ended import Ended
from flora_secure.records.report import IMAGE_TO_TEXT, TOP_1, Accuracy, Forgetting, RecallAt, Retrieval, TopOne
from flora_secure.server.scores import RECALLS, Hits, Ranks, evaluate, wilson_interval


def accuracy_of(run: Ended, per_round: Sequence[float]) -> Accuracy:
    """The report's accuracy of a run on labels: top-1 as fractions, with `per_round` of every round."""
    task = run.task
    dataset = task.federation.dataset
    found = evaluate(
        task.evaluator.predicted(run.factors).cpu().numpy(),
        task.evaluator.target.cpu().numpy(),
        len(dataset.class_names),
        [dataset.private.labels[own] for own in task.federation.clients],
    )
    return Accuracy(
        measures=TOP_1,
        zero_shot=task.zero_shot,
        warm_start=task.evaluator.accuracy(task.initial),
        final=per_round[-1],
        interval=list(found.interval),
        best=max(per_round),
        per_round=list(per_round),
        classes=list(dataset.class_names),
        per_class=found.per_class,
        client_mean=found.client_mean,
        client_worst_decile=found.client_worst_decile,
        test_examples=len(task.evaluator.target),
    )


def retrieval_accuracy(zero_shot: Ranks, final: Ranks, per_round: Sequence[float]) -> Accuracy:
    """The report's accuracy of a captioned data set: recall@1 from image to text, as a fraction.

    Raises ValueError unless the last of `per_round` is that of `final`.
    """
    first = final.recall(1)[0]
    if not math.isclose(per_round[-1], first, abs_tol=1e-6):
        raise ValueError(f"the last round's accuracy is {per_round[-1]}, recall@1 image to text {first}")
    images = len(final.image_to_text)
    return Accuracy(
        measures=IMAGE_TO_TEXT,
        zero_shot=zero_shot.recall(1)[0],
        warm_start=zero_shot.recall(1)[0],  # captions have none
        final=per_round[-1],
        interval=list(wilson_interval(round(first * images), images)),
        best=max(per_round),
        per_round=list(per_round),
        classes=[],
        per_class=[],
        client_mean=None,
        client_worst_decile=None,
        test_examples=images,
    )


def retrieval(zero_shot: Ranks, final: Ranks) -> Retrieval:
    """The section of the report on recall@k, in both directions, of a captioned data set."""

    def recalls(ranks: Ranks) -> list[RecallAt]:
        found = ((k, *ranks.recall(k)) for k in RECALLS)
        return [RecallAt(k=k, image_to_text=image, text_to_image=text) for k, image, text in found]

    return Retrieval(
        images=len(final.image_to_text),
        captions=len(final.text_to_image),
        final=recalls(final),
        zero_shot=recalls(zero_shot),
    )


def forgetting_of(run: Ended) -> Forgetting | None:
    """The section of the report on unseen classes; None where the run has none."""
    task, unseen = run.task, run.task.federation.dataset.unseen
    zero_shot, final = task.evaluator.hits(task.frozen), task.evaluator.hits(run.factors)
    if unseen is None or zero_shot is None or final is None:
        return None
    return forgetting(zero_shot, final, unseen.class_names, len(unseen.test), len(task.evaluator.target))


def forgetting(zero_shot: Hits, final: Hits, classes: Sequence[str], unseen: int, seen: int) -> Forgetting:
    """The section of the report where `unseen` test images show the unseen `classes`, and `seen` the others."""

    def top(before: int, after: int, images: int) -> TopOne:
        return TopOne(zero_shot=before / images, final=after / images, interval=list(wilson_interval(after, images)))

    return Forgetting(
        classes=list(classes),
        test_examples=unseen,
        among_unseen=top(zero_shot.among_unseen, final.among_unseen, unseen),
        unseen_among_all=top(zero_shot.unseen_among_all, final.unseen_among_all, unseen),
        among_all=top(
            zero_shot.seen_among_all + zero_shot.unseen_among_all,
            final.seen_among_all + final.unseen_among_all,
            seen + unseen,
        ),
    )
