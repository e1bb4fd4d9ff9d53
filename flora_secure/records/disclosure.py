"""What each field of report, log and adapter folder gives away, and whether the budget pays for it.

A field is *public*: it follows from the configuration, from what is public of the data, or from the program. Or it is
*paid*: computed from released sums alone, so that ε covers it. Or it is *named*: a function of the clients' data
without noise, which the privacy statement names in words; of competitors where they are in the report. There is no
fourth kind: a field without a line here fails a
test.
"""

from __future__ import annotations

from collections.abc import Mapping

PUBLIC, PAID = "public", "paid"

# what the statement says of a named field, in its words
TAKING_PART = "which clients took part and dropped out, and when a round had to end without a sum"
ACCURACY = "accuracy, over rounds and by class too, as far as the test images are the clients' own"
OF_CLIENTS = "accuracy weighted like the clients' own classes, and that of their worst tenth"
HOLDINGS = "how many images (captions, classes) clients hold, and how unlike they are"
CLASSES = (
    "class names, where the clients' own labels make the list, and with them the adapter's first factor, sizes and hash"
)
FILES = "how many files were left out, and warnings about files, labels and accuracy"
PLANNED = (
    "noise, grid and delta as planned, from the size of a cohort, and for unit example from the number of the "
    "clients' images"
)
REPEATED = "what this statement repeats of all that"
RATES = "how many contributions there were, how many were clipped, how many coordinates wrapped"
NOISE = "how large the noise of each sum came out, by which, beside the sum, a guess of all contributions is confirmed"
TIMES = "how long the parts of the run took, and how much memory"
HASHES = "hashes of these, by which a guess can be confirmed"

NAMED = (
    TAKING_PART, ACCURACY, OF_CLIENTS, HOLDINGS, CLASSES, FILES, PLANNED, RATES, NOISE, TIMES, HASHES, REPEATED,
)  # fmt: skip

# what the statement says where such competitors are in the report, and only there; by their names
COMPARED: Mapping[str, str] = {
    "local": "how well adapters do that were each fitted to one client's labels alone, and the federated one on the "
    "same test images, as it is and fitted on to these labels",
    "central": "how well an adapter does that was fitted to all clients' labels in one place",
    "no-noise": "the accuracy of the same run without noise",
}

# a name stands for all fields below it that have no longer one
REPORT: Mapping[str, str] = {
    "masking": PUBLIC,
    "accuracy": ACCURACY,
    "accuracy.measures": PUBLIC,
    "accuracy.classes": CLASSES,
    "accuracy.client_mean": OF_CLIENTS,
    "accuracy.client_worst_decile": OF_CLIENTS,
    "competitors.public": ACCURACY,  # computed from public data and the test images
    "competitors.central": COMPARED["central"],
    "competitors.local": COMPARED["local"],
    "competitors.no_noise": COMPARED["no-noise"],
    "competitors.left_out": PUBLIC,
    "retrieval": ACCURACY,
    "forgetting": ACCURACY,
    "forgetting.classes": PUBLIC,  # the configuration names them
    "choices": PUBLIC,  # made on the public slice alone, with the names of classes
    "data": HOLDINGS,
    "data.dataset": PUBLIC,
    "data.test": PUBLIC,
    "data.partition": PUBLIC,
    "data.public_images": PUBLIC,
    "data.skipped": FILES,
    "warnings": FILES,
    "privacy": PUBLIC,  # of the plan, and of who took part
    "privacy.delta": PLANNED,
    "privacy.noise_multiplier": PLANNED,
    "privacy.honest_minimum": PLANNED,
    "privacy.epsilon": TAKING_PART,
    "privacy.mu": TAKING_PART,
    "privacy.epsilon_outsider": TAKING_PART,
    "privacy.epsilon_local": TAKING_PART,
    "privacy.noise_released": TAKING_PART,
    "privacy.participations": TAKING_PART,
    "privacy.exhausted": TAKING_PART,
    "privacy.cross_check": TAKING_PART,
    "privacy.cross_check_outsiders": TAKING_PART,
    "privacy.aliasing_slack": PLANNED,
    "privacy.clip_rate": RATES,
    "privacy.overflow_rate": RATES,
    "privacy.statement": REPEATED,
    "communication": TAKING_PART,
    "communication.full_model_bytes": PUBLIC,
    "communication.parameters": CLASSES,
    "communication.upload_values": CLASSES,
    "communication.parameter_ratio": CLASSES,
    "communication.bits": PLANNED,
    "aggregation": TAKING_PART,
    "aggregation.profile": PUBLIC,
    "aggregation.clients": PUBLIC,
    "aggregation.participation": PUBLIC,
    "aggregation.sampling": PUBLIC,
    "aggregation.min_separation": PUBLIC,
    "aggregation.neighbours": PLANNED,
    "aggregation.threshold": PLANNED,
    "aggregation.slots": PLANNED,
    "aggregation.suite": PUBLIC,
    "aggregation.seconds": TIMES,
    "timing": TIMES,
    "provenance": PUBLIC,
    "provenance.rounds_hash": HASHES,
    "provenance.adapter_hash": CLASSES,
}
ROUND: Mapping[str, str] = {
    "round": PUBLIC,
    "mechanism": PUBLIC,
    "unit": PUBLIC,
    "clients": PUBLIC,
    "participants": TAKING_PART,
    "exhausted": TAKING_PART,
    "survivors": TAKING_PART,
    "dropped": TAKING_PART,
    "recovered": TAKING_PART,
    "aborted": TAKING_PART,
    "lost": TAKING_PART,
    "model_hash": PAID,
    "noise_multiplier": TAKING_PART,
    "sigma_local": PLANNED,
    "scale": PLANNED,
    "clip_norm": PAID,  # it follows a count in the released sums where it adapts
    "dimension": CLASSES,
    "values": CLASSES,
    "rotated": PUBLIC,
    "bits": PLANNED,
    "colluders": PLANNED,
    "honest_minimum": PLANNED,
    "sampling_rate": PUBLIC,
    "population": PUBLIC,
    "count_scale": PLANNED,
    "neighbours": PLANNED,
    "threshold": PLANNED,
    "target_epsilon": PUBLIC,
    "epsilon": TAKING_PART,
    "delta": PLANNED,
    "accuracy": ACCURACY,
    "contributions": RATES,
    "clipped": RATES,
    "overflowed": RATES,
    "noise_ratio": NOISE,
    "upload_bytes": TAKING_PART,
    "download_bytes": TAKING_PART,
    "payload_bytes": TAKING_PART,
    "broadcast_bytes": TAKING_PART,
    "server_step": PLANNED,
    "divisor": TAKING_PART,
    "released_count": PAID,
    "sum_hash": PAID,
    "transcript_hash": HASHES,
    "seconds": TIMES,
    "previous": HASHES,
}
ADAPTER: Mapping[str, str] = {  # of `adapter/flora.json`; in peft's own files B is paid for, A follows the classes
    "adapter_hash": CLASSES,
    "rank": CLASSES,
    "class_names": CLASSES,
    **dict.fromkeys(
        (
            "model", "weights", "pretrained", "model_hash", "precision", "image_size", "resize_mode", "interpolation",
            "mean", "std", "images", "window", "background", "mirror", "crops", "captioned", "templates", "averaging",
            "logit_scale", "placement", "last_layers", "scale", "output_added",
        ),
        PUBLIC,
    ),
}  # fmt: skip

RECEIPT: Mapping[str, str] = {
    "head": HASHES,
    "head.key": PUBLIC,
    "head.lasting": PUBLIC,
    "head.session": PUBLIC,
    "head.size": PUBLIC,  # the rounds of the run
    "head.adapter": CLASSES,
    "head.time": TIMES,
    "signature": HASHES,
    "salt": PUBLIC,  # of the key and the session
    "leaves": HASHES,
}
CLIENT_RECEIPT: Mapping[str, str] = {  # whose hashes are blinded, and confirm no guess to whoever has no salt
    "client": PUBLIC,
    **{field: kind for field, kind in RECEIPT.items() if field.startswith("head")},
    "signature": HASHES,
    "rounds": TAKING_PART,
    "told": TAKING_PART,
}

KEPT: Mapping[str, str] = {  # that are kept for auditors, each as a whole
    "sums/": PAID,
    "sums/initial.npy": CLASSES,
    "transcript/": (
        "what the server alone sees, masked uploads and who took part among it: for an auditor who is trusted with "
        "that, and nobody else"
    ),
}


def kind_of(field: str, table: Mapping[str, str]) -> str | None:
    """What `table` says of a field such as "privacy.epsilon": by its longest beginning; None where it says nothing."""
    parts = field.split(".")
    beginnings = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
    return next((table[beginning] for beginning in beginnings if beginning in table), None)


def _markdown() -> str:
    lines = [
        "# What report, log and adapter give away",
        "",
        "Derived by `python -m flora_secure.records.disclosure` from the declarations that the tests compare with the",
        "schemas. **Public**: follows from the configuration, from what is public of the data, or from the program.",
        "**Paid**: computed from released sums alone, so that ε covers it. Anything else is a function of the clients'",
        "data without noise, and the privacy statement names it in the words that stand here. Competitors that were",
        "asked for (`--compare`) have a paragraph of their own: for the simulation's owner, and not for publication.",
    ]
    tables = [("report.json", REPORT), ("rounds.jsonl, each line", ROUND), ("adapter/flora.json", ADAPTER)]
    tables += [("receipt.json", RECEIPT), ("a client's receipt", CLIENT_RECEIPT), ("sums/ and transcript/", KEPT)]
    for title, table in tables:
        lines += ["", f"## {title}", "", "| field | |", "|---|---|"]
        lines += [f"| `{field}` | {kind} |" for field, kind in table.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    print(_markdown())
